"""Writes the benchmark to disk in MVTec layout, in several processes."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from ..workers import end_with_parent
from .categories import TEST_CATEGORIES, TRAIN_CATEGORIES, Category
from .drawing import draw_sample


HALVES = {"train": TRAIN_CATEGORIES, "test": TEST_CATEGORIES}
"""Name of each half's folder and its categories."""

DEFAULT_COUNTS = {"train": (1, 8), "test": (14, 16)}
"""Flawless and defective pictures per category: to learn, defects say more; to measure, both must be there."""


def write_benchmark(
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    counts: dict[str, tuple[int, int]] = DEFAULT_COUNTS,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Writes both halves of the benchmark, each a data set in MVTec layout.

    Pictures are `<half>/<class>/test/{good,<defect>}/NNN.png`, masks `<half>/<class>/ground_truth/<defect>/NNN_mask.png`.
    Every file depends on the seed, its category and its number alone, so the same call writes the same bytes whatever
    the number of workers. Files of an earlier call are overwritten.

    Args:
        folder (`str` or `os.PathLike`): Where the folders `train` and `test` go.
        seed (`int`, *optional*, defaults to 0): Seed of all pictures.
        counts (`dict[str, tuple[int, int]]`, *optional*):
            For each half the flawless pictures per category and the defective ones, spread over its defects.
        num_workers (`int`, *optional*, defaults to 2): Number of drawing processes; 0 draws in this one.
        on_progress (`Callable`, *optional*): Called with the number of categories finished and their total.

    Returns:
        `dict[str, Path]`: folder of each half.

    Raises:
        ValueError: If `counts` lacks a half or a count is negative.
    """
    if set(counts) != set(HALVES) or min(count for pair in counts.values() for count in pair) < 0:
        raise ValueError(f"`counts` ({counts}) must give {' and '.join(HALVES)} two numbers each, 0 or more.")
    folder = Path(folder)
    tasks = [(half, category.name) for half, categories in HALVES.items() for category in categories]
    work = partial(_write_task, folder=folder, seed=seed, counts=dict(counts))
    if num_workers == 0:
        _count(map(work, tasks), len(tasks), on_progress)
    else:
        context = multiprocessing.get_context("spawn")  # a fork could inherit locks of running threads
        with ProcessPoolExecutor(num_workers, context, end_with_parent) as pool:
            _count(pool.map(work, tasks), len(tasks), on_progress)
    return {half: folder / half for half in HALVES}


def _count(results, total: int, on_progress: Callable[[int, int], None] | None) -> None:
    for done, _ in enumerate(results, start=1):
        if on_progress is not None:
            on_progress(done, total)


def _write_task(task: tuple[str, str], *, folder: Path, seed: int, counts: dict[str, tuple[int, int]]) -> None:
    half, name = task
    root = folder / half
    category = next(category for category in HALVES[half] if category.name == name)
    for defect, indices in sample_plan(category, *counts[half]):
        for number, index in enumerate(indices):
            picture, mask = draw_sample(category, seed, index, defect)
            save_picture(picture, root / name / "test" / (defect or "good") / f"{number:03d}.png")
            if defect is not None:
                save_picture(mask, root / name / "ground_truth" / defect / f"{number:03d}_mask.png")


def sample_plan(category: Category, good: int, defective: int) -> list[tuple[str | None, Sequence[int]]]:
    """Returns each defect of the category (None for flawless) with the numbers of its pictures.

    The defective pictures are spread as evenly over the category's defects as their number allows.
    """
    plan: list[tuple[str | None, Sequence[int]]] = [(None, range(good))]
    kinds = category.defects
    for position, kind in enumerate(kinds):
        numbers = [good + number for number in range(position, defective, len(kinds))]
        plan.append((kind, numbers))
    return [(kind, numbers) for kind, numbers in plan if len(numbers)]


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a picture as PNG, whole or not at all, into a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        image.save(file, format="PNG", compress_level=1)
    os.replace(file.name, path)
