"""The ablation on the embedded benchmark: the whole method, and without its parts, over several seeds."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from ..evaluation import METRICS, evaluate_model, write_results
from .recipe import DemoRecipe
from .run import build_demo_model, logger, prepare_benchmark, train_demo_model
from .table import lay_out


VARIANTS = {
    "full": {},
    "without experts": {"moe_lora": None},
    "without FOFS": {"moe_lora": {"orthogonal_split": False}},
    "without ETF": {"etf_loss_coef": 0.0},
}
"""Name of each line and the fields of [`MoECLIPConfig`] by which it differs from the whole method."""


def run_ablation(
    output: str | os.PathLike,
    *,
    seeds: tuple[int, ...] = (111, 112, 113),
    recipe: DemoRecipe | None = None,
    progress: bool = True,
    report: Callable[[str], None] = logger.info,
) -> dict:
    """Trains each variant once per seed on the training half and evaluates it on the test half.

    Writes `ablation.json` into the output folder.

    Args:
        output (`str` or `os.PathLike`): The folder, made if missing.
        seeds (`tuple[int, ...]`, *optional*, defaults to `(111, 112, 113)`): Seeds of first weights and training.
        recipe ([`DemoRecipe`], *optional*): Other numbers than the demo's own.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars on stderr.
        report (`Callable`, *optional*): Called with each line worth telling.

    Returns:
        `dict`: `variants` holds of each line the `mean` and `std` over the seeds of every metric, and the means over
        the objects of each seed under `seeds`.

    Raises:
        ValueError: If there is no seed.
    """
    if not seeds:
        raise ValueError("`seeds` is empty: give at least one.")
    recipe = DemoRecipe() if recipe is None else recipe
    output, started = Path(output), time.perf_counter()
    train_data, test_data = prepare_benchmark(output / "data", recipe, progress, report)
    found = {name: {} for name in VARIANTS}
    for seed in seeds:
        for name, fields in VARIANTS.items():
            report(f"{name}, seed {seed}")
            model, processor = build_demo_model(recipe, seed, **fields)
            train_demo_model(model, processor, train_data, output / "training", recipe, seed, progress)
            found[name][seed] = evaluate_model(model, processor, test_data, progress=progress)["mean"]
    variants = {name: _summarize(by_seed) for name, by_seed in found.items()}
    results = {
        "variants": variants,
        "meta": {"recipe": vars(recipe), "seconds": round(time.perf_counter() - started, 1)},
    }
    write_results(results, output / "ablation.json")
    report(lay_out(f"mean over {len(seeds)} seeds", [{name: summary["mean"] for name, summary in variants.items()}]))
    return results


def _summarize(by_seed: dict[int, dict[str, float]]) -> dict:
    columns = {metric: [means[metric] for means in by_seed.values()] for metric in METRICS}
    return {
        "mean": {metric: statistics.mean(values) for metric, values in columns.items()},
        "std": {metric: statistics.pstdev(values) for metric, values in columns.items()},
        "seeds": {str(seed): means for seed, means in by_seed.items()},
    }
