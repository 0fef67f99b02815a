"""The ablation on the embedded benchmark: the whole method, and without its parts, over several seeds."""

import os
from collections.abc import Callable
from pathlib import Path

from ..training.ablation import AblationSetting, run_ablation
from .recipe import DemoRecipe
from .run import RUN_ARGUMENTS, load_demo_samples, logger, prepare_benchmark


VARIANTS = {
    "full": {},
    "without experts": {"moe_lora": None},
    "without FOFS": {"moe_lora": {"orthogonal_split": False}},
    "without ETF": {"etf_loss_coef": 0.0},
}
"""Title of each line and the values of the recipe by which it differs from the whole method."""


def run_demo_ablation(
    output: str | os.PathLike,
    *,
    seeds: tuple[int, ...] = (111, 112, 113),
    recipe: DemoRecipe | None = None,
    progress: bool = True,
    report: Callable[[str], None] = logger.info,
) -> dict:
    """Trains each variant once per seed on the training half and evaluates it on the test half.

    Writes the benchmark into `data/` of the output folder, and what [`~training.ablation.run_ablation`] writes.

    Args:
        output (`str` or `os.PathLike`): The folder, made if missing.
        seeds (`tuple[int, ...]`, *optional*, defaults to `(111, 112, 113)`): Seeds of first weights and training.
        recipe ([`DemoRecipe`], *optional*): Other numbers than the demo's own.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars on stderr.
        report (`Callable`, *optional*): Called with each line worth telling.

    Returns:
        `dict`: as [`~training.ablation.run_ablation`] returns it.

    Raises:
        ValueError: If there is no seed, or the folder holds runs with other numbers.
    """
    recipe = DemoRecipe() if recipe is None else recipe
    train_data, test_data = prepare_benchmark(Path(output) / "data", recipe, progress, report)
    setting = AblationSetting(
        load_training_samples=lambda training, processor: load_demo_samples(train_data, processor, training.seed),
        test_data=test_data,
        get_run_arguments=lambda training: RUN_ARGUMENTS,
        description={"data": "demo", "demo": vars(recipe)},
        progress=progress,
    )
    variants = {title: recipe.get_training(**changes) for title, changes in VARIANTS.items()}
    return run_ablation(variants, setting, output, seeds=seeds, report=report)
