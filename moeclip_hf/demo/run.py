"""The demo: draws the benchmark, trains on one half of its categories and finds the defects of the other."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import concatenate_datasets

from ..data import AnomalyDetectionDataset, load_anomaly_dataset
from ..evaluation import evaluate_model, write_results
from ..training import MoECLIPTrainer, MoECLIPTrainingArguments
from ..training.recipe import build_model
from ..training.recipe_file import Recipe
from .augmentation import DemoAugmentation
from .benchmark import write_benchmark
from .benchmark.writing import HALVES
from .heuristic import evaluate_local_contrast
from .listing import write_training_list
from .patterns import write_patterns
from .recipe import DemoRecipe
from .samples import CachedSamples
from .sheet import draw_sheet
from .table import format_table


logger = logging.getLogger(__name__)

_PATTERN_SEED = 10_000  # far from the streams of the pretraining

RUN_ARGUMENTS = {"train_data": "demo", "dataloader_pin_memory": False}
"""How the demo's trainings run, beside what their recipe says."""


def run_demo(
    output: str | os.PathLike,
    *,
    seed: int = 111,
    recipe: DemoRecipe | None = None,
    progress: bool = True,
    report: Callable[[str], None] = logger.info,
) -> dict:
    """Runs the demo from the first picture to the table.

    Writes `data/` (the benchmark in MVTec layout), `model/` (the trained model with its processor), `results.json`
    and `sheet.png` into the output folder.

    Args:
        output (`str` or `os.PathLike`): The folder, made if missing.
        seed (`int`, *optional*, defaults to 111): Seed of the model's first weights and of the training.
        recipe ([`DemoRecipe`], *optional*): Other numbers than the demo's own.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars on stderr.
        report (`Callable`, *optional*): Called with each line worth telling.

    Returns:
        `dict`: the trained model's results on the test half; `meta["baselines"]` holds those of the same model
        untrained, its projections drawn at random (`"untrained"`) or the CLIP's, where the training begins (`"clip"`),
        and of the local-contrast heuristic (`"local_contrast"`).

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If its `data/` holds pictures of something else.
    """
    recipe = DemoRecipe() if recipe is None else recipe
    output, started = Path(output), time.perf_counter()
    train_data, test_data = prepare_benchmark(output / "data", recipe, progress, report)
    training = recipe.get_training(seed=seed)
    model, processor = build_model(training)
    trainable, total = model.get_nb_trainable_parameters()
    report(f"model: {total:,d} parameters, {trainable:,d} of them trained ({100 * trainable / total:.1f} %)")

    report("evaluating the untrained model and the local-contrast heuristic on the test half")
    drawn_model, _ = build_model(training.change({"projections_from_clip": False}))
    untrained = evaluate_model(drawn_model, processor, test_data, progress=progress)
    start = evaluate_model(model, processor, test_data, progress=progress)
    heuristic = evaluate_local_contrast(AnomalyDetectionDataset(test_data, processor.image_processor))

    report(f"training on {len(train_data)} pictures of the training half")
    trainer = train_demo_model(model, processor, train_data, output / "training", training, progress)
    model.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")
    trainer.save_record(output / "model")

    report("evaluating the trained model on the test half")
    results = evaluate_model(model, processor, test_data, progress=progress)
    baselines = {"untrained": untrained, "clip": start, "local_contrast": heuristic}
    results["meta"].update(
        model=str(output / "model"),
        data=str(output / "data" / "test"),
        seed=seed,
        recipe=vars(recipe),
        baselines={name: {key: found[key] for key in ("mean", "classes")} for name, found in baselines.items()},
        num_threads=torch.get_num_threads(),
        demo_seconds=round(time.perf_counter() - started, 1),
    )
    write_results(results, output / "results.json")
    draw_sheet(model, processor, recipe.benchmark_seed).save(output / "sheet.png")
    report(format_table(results))
    report(
        f"{output} holds results.json, the pictures in sheet.png, the trained model in model/ and the benchmark in "
        f"data/ ({time.perf_counter() - started:.0f} s)."
    )
    return results


def prepare_benchmark(folder: Path, recipe: DemoRecipe, progress: bool, report: Callable[[str], None]):
    """Writes the benchmark, with a list of all that is trained on, and reads it back.

    Args:
        folder (`Path`): Where the two halves go.
        recipe ([`DemoRecipe`]): How much is drawn.
        progress (`bool`): Whether to show a progress bar.
        report (`Callable`): Called with each line worth telling.

    Returns:
        `tuple(datasets.Dataset)`: the training half, with the other patterns, and the test half.

    Raises:
        ValueError: If the folder holds other pictures too.
        OSError: If it cannot be written.
    """
    from tqdm.auto import tqdm

    report(f"drawing the benchmark into {folder}")
    with tqdm(unit="category", desc="drawing", disable=not progress) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        halves = write_benchmark(
            folder,
            seed=recipe.benchmark_seed,
            counts=recipe.counts,
            num_workers=min(2, os.cpu_count() or 1),
            on_progress=show,
        )
    train_data = load_anomaly_dataset(halves["train"])
    if recipe.num_patterns:
        report(f"drawing {recipe.num_patterns} other patterns to train on")
        size, seed = recipe.image_size, _PATTERN_SEED + recipe.benchmark_seed
        patterns = write_patterns(folder / "patterns", count=recipe.num_patterns, size=size, seed=seed)
        train_data = concatenate_datasets([train_data, load_anomaly_dataset(patterns)])
    test_data = load_anomaly_dataset(halves["test"])
    _check_counts({"train": train_data, "test": test_data}, recipe, folder)
    write_training_list(train_data, folder)
    return train_data, test_data


def _check_counts(found: dict, recipe: DemoRecipe, folder: Path) -> None:
    """Refuses a folder with pictures that were not drawn now, which would be trained on or tested too."""
    for half, categories in HALVES.items():
        drawn = len(categories) * sum(recipe.counts[half]) + (recipe.num_patterns if half == "train" else 0)
        if len(found[half]) != drawn:
            raise ValueError(
                f"{folder} holds {len(found[half])} pictures to {half} with, but {drawn} belong there: remove that folder, "
                "or name another --output."
            )


def load_demo_samples(dataset, processor, seed: int) -> CachedSamples:
    """Prepares the training half, kept in memory and augmented anew in each epoch.

    Args:
        dataset (`datasets.Dataset`): The training half.
        processor ([`MoECLIPProcessor`]): Of the model.
        seed (`int`): Seed of the augmentation.

    Returns:
        [`CachedSamples`]: The samples.
    """
    return CachedSamples(AnomalyDetectionDataset(dataset, processor.image_processor), DemoAugmentation(seed))


def train_demo_model(model, processor, dataset, folder: Path, recipe: Recipe, progress: bool) -> MoECLIPTrainer:
    """Trains a model in place by the demo's recipe.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model.
        processor ([`MoECLIPProcessor`]): Its processor.
        dataset (`datasets.Dataset`): The training half.
        folder (`Path`): The trainer's folder; no checkpoints are written.
        recipe ([`Recipe`]): Epochs, batch, rate and seed.
        progress (`bool`): Whether to show a progress bar.

    Returns:
        [`MoECLIPTrainer`]: After training.
    """
    args = MoECLIPTrainingArguments(
        str(folder),
        **recipe.training_arguments,
        **RUN_ARGUMENTS,
        recipe=recipe.name,
        save_strategy="no",
        report_to="none",
        disable_tqdm=not progress,
    )
    samples = load_demo_samples(dataset, processor, recipe.seed)
    trainer = MoECLIPTrainer(model, args, train_dataset=samples, processing_class=processor)
    trainer.train()
    model.eval()
    return trainer
