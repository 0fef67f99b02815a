"""More pictures to train on: the endless patterns that the tiny CLIP was pretrained on, with their irregularities.

A few drawn categories teach a model those categories. Surfaces and things of any kind, each with another name, damaged
as photographs show it, keep what it learns from them general. They hold none of the benchmark's categories.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from .benchmark.writing import save_picture
from .pretraining.samples import DAMAGED, draw_sample
from .workers import end_with_parent


_MIXTURE = replace(DAMAGED, products=(sum(DAMAGED.products), 0.0))
"""Products of no category instead of the training half's."""


def write_patterns(folder: str | os.PathLike, *, count: int, size: int, seed: int, num_workers: int = 2) -> Path:
    """Writes pictures in MVTec layout, a class for each noun, most of them irregular, one in eight not.

    Every file depends on the seed and its number alone.

    Args:
        folder (`str` or `os.PathLike`): Where the classes' folders go.
        count (`int`): Number of pictures.
        size (`int`): Side of each, in pixels.
        seed (`int`): Seed of the stream, other than the pretraining's.
        num_workers (`int`, *optional*, defaults to 2): Number of drawing processes; 0 draws in this one.

    Returns:
        `Path`: the folder.
    """
    folder = Path(folder)
    work = partial(_write_pattern, folder=folder, size=size, seed=seed)
    if num_workers == 0:
        list(map(work, range(count)))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, context, end_with_parent) as pool:
            list(pool.map(work, range(count), chunksize=max(1, count // (4 * num_workers))))
    return folder


def _write_pattern(number: int, *, folder: Path, size: int, seed: int) -> None:
    sample = draw_sample(seed, number, size, irregular_share=1.0, mixture=_MIXTURE)
    name = sample.noun.replace(" ", "_")
    if number % 8 == 0 or not sample.mask.any():
        save_picture(Image.fromarray(sample.twin), folder / name / "test" / "good" / f"{number:04d}.png")
        return
    save_picture(Image.fromarray(sample.image), folder / name / "test" / "irregular" / f"{number:04d}.png")
    mask = folder / name / "ground_truth" / "irregular" / f"{number:04d}_mask.png"
    save_picture(Image.fromarray(sample.mask), mask)
