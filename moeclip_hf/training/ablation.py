"""Ablations: several recipes, each trained and evaluated with several seeds; a run that is finished is not run again."""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from torch.utils.data import Dataset
from transformers import CLIPConfig, TrainerCallback

from ..backbone_moeclip import config_on_clip
from ..evaluation import evaluate_model, write_results
from ..json_file import read_json_object, write_json
from ..processing_moeclip import MoECLIPProcessor
from .ablation_table import format_ablation, summarize_ablation, write_csv
from .arguments import MoECLIPTrainingArguments
from .checkpoints import find_last_checkpoint
from .recipe import build_model, get_model_arguments
from .recipe_file import Recipe
from .trainer import MoECLIPTrainer


logger = logging.getLogger(__name__)

RESULTS, DESCRIPTION = "results.json", "run.json"


@dataclass(frozen=True)
class AblationSetting:
    """What all runs of an ablation share.

    Args:
        load_training_samples (`Callable`): Gives the training samples of a recipe, for the processor of its model.
        test_data (`datasets.Dataset`): What the trained models are evaluated on.
        get_run_arguments (`Callable`): Gives further arguments of [`MoECLIPTrainingArguments`] for a recipe.
        description (`dict`): What to write down of the data; a finished run of another description is not taken over.
        smoothing (`str`, *optional*): Domain of the evaluation protocol, `"industrial"` or `"medical"`.
        num_workers (`int`, *optional*): Processes that decode the test images.
        mask_threshold (`int`, *optional*): A pixel of a test image is anomalous if its mask is greater.
        progress (`bool`, *optional*): Whether to show progress bars on stderr.
    """

    load_training_samples: Callable[[Recipe, MoECLIPProcessor], Dataset]
    test_data: datasets.Dataset
    get_run_arguments: Callable[[Recipe], dict]
    description: dict
    smoothing: str = "industrial"
    num_workers: int = 0
    mask_threshold: int = 0
    progress: bool = True


def run_ablation(
    variants: Mapping[str, Recipe],
    setting: AblationSetting,
    output: str | os.PathLike,
    *,
    seeds: Sequence[int],
    report: Callable[[str], None] = logger.info,
) -> dict:
    """Trains each variant once per seed, evaluates it, and lays the means and deviations over the seeds out.

    Writes into the output folder `runs/<variant>/seed_<seed>/` with `results.json` and `model/` (adapters only) each,
    and after each run `ablation.json` and `ablation.csv` of those that are finished. Called again, it goes on where it
    stopped: finished runs are kept, and one that was interrupted continues from its last checkpoint. Variants with
    equal recipes share their runs.

    Args:
        variants (`Mapping[str, Recipe]`): Recipes by their titles.
        setting ([`AblationSetting`]): Data and what else the runs share.
        output (`str` or `os.PathLike`): The folder, made if missing.
        seeds (`Sequence[int]`): Seeds of first weights and training.
        report (`Callable`, *optional*): Called with each line worth telling.

    Returns:
        `dict`: `variants` holds for each title the `mean` and `std` over the seeds of every metric, the metrics of
        each seed under `seeds`, and its `recipe`; `meta` what the runs share.

    Raises:
        ValueError: If there is no variant or seed, a recipe does not fit its CLIP, or the folder holds a run of the
            same name that was another.
        OSError: If a CLIP does not exist or the folder cannot be written.
    """
    _check_variants(variants, seeds)
    output, started = Path(output), time.perf_counter()
    hashes = {clip: _hash_weights(clip) for clip in {recipe.values["clip"] for recipe in variants.values()}}
    found: dict[str, dict[int, dict]] = {title: {} for title in variants}
    runs = [(seed, title) for seed in seeds for title in variants]
    for number, (seed, title) in enumerate(runs, start=1):
        recipe = variants[title].change({"seed": seed})
        first = next(other for other, others in variants.items() if others.values == variants[title].values)
        folder = output / "runs" / _folder_name(first) / f"seed_{seed}"
        _check_description(
            folder,
            {
                **setting.description,
                "smoothing": setting.smoothing,
                "clip_sha256": hashes[recipe.values["clip"]],
                "recipe": recipe.values,
            },
        )
        if (folder / RESULTS).is_file():
            report(f"run {number} of {len(runs)}: {title}, seed {seed}: finished before, kept")
        else:
            report(f"run {number} of {len(runs)}: {title}, seed {seed}")
            _train_and_evaluate(recipe, setting, folder)
        found[title][seed] = read_json_object(folder / RESULTS)
        results = summarize_ablation({title: by_seed for title, by_seed in found.items() if by_seed})
        results["meta"] = {**setting.description, "smoothing": setting.smoothing, "seeds": list(seeds)}
        write_results(results, output / "ablation.json")
        write_csv(results, output / "ablation.csv")
    report(format_ablation(results))
    report(
        f"{output} holds ablation.json, ablation.csv and the trained adapters in runs/ "
        f"({time.perf_counter() - started:.0f} s)."
    )
    return results


def _train_and_evaluate(recipe: Recipe, setting: AblationSetting, folder: Path) -> None:
    started = time.perf_counter()
    model, processor = build_model(recipe)
    args = MoECLIPTrainingArguments(
        str(folder / "training"),
        **recipe.training_arguments,
        **setting.get_run_arguments(recipe),
        eval_strategy="no",
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
        recipe=recipe.name,
        disable_tqdm=not setting.progress,
    )
    samples = setting.load_training_samples(recipe, processor)
    trainer = MoECLIPTrainer(
        model, args, train_dataset=samples, processing_class=processor, callbacks=[_LogShortRun()]
    )
    trainer.train(resume_from_checkpoint=find_last_checkpoint(args.output_dir))
    results = evaluate_model(
        model,
        processor,
        setting.test_data,
        smoothing=setting.smoothing,
        num_workers=setting.num_workers,
        mask_threshold=setting.mask_threshold,
        progress=setting.progress,
    )
    model.save_pretrained(folder / "model", adapters_only=True)
    processor.save_pretrained(folder / "model")
    trainer.save_record(folder / "model")
    results["meta"].update(
        model=str(folder / "model"),
        seed=recipe.seed,
        recipe=recipe.values,
        expert_similarity=_get_expert_similarity(trainer.state.log_history),
        seconds=round(time.perf_counter() - started, 1),
    )
    # Written last: it marks a finished run.
    write_results(results, folder / RESULTS)
    shutil.rmtree(folder / "training")


class _LogShortRun(TrainerCallback):
    """Logs the last step of a run that `logging_steps` never logs, since the similarity is read off the log."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps and not state.log_history:
            control.should_log = True


def _get_expert_similarity(log_history: list[dict]) -> float | None:
    """The mean over the MoE layers of the last logged similarity; None without experts or with a single one."""
    for line in reversed(log_history):
        values = [value for name, value in line.items() if name.startswith("expert_similarity/")]
        if values:
            is_pair = any(name.endswith("/expert_1") for name in line)
            return sum(values) / len(values) if is_pair else None
    return None


def _check_variants(variants: Mapping[str, Recipe], seeds: Sequence[int]) -> None:
    """Finds now what would stop the last run after hours."""
    if not variants:
        raise ValueError("`variants` is empty: give at least one recipe.")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"`seeds` {list(seeds)} must be different whole numbers, 0 or more, at least one.")
    folders: dict[str, str] = {}
    for title, recipe in variants.items():
        if not re.search(r"\w", title):
            raise ValueError(f"`variants` has the title {title!r}, which names no folder: give one with a letter.")
        other = folders.setdefault(_folder_name(title), title)
        if other != title:
            raise ValueError(f"The variants {other!r} and {title!r} would share a folder: give one another title.")
        if "clip" not in recipe.values:
            raise ValueError(f"{title}: the recipe names no `clip`.")
        try:
            clip_config = CLIPConfig.from_pretrained(recipe.values["clip"])
            config_on_clip(clip_config, **get_model_arguments(recipe))
            MoECLIPTrainingArguments(**recipe.training_arguments, use_cpu=True)
        except ValueError as error:
            raise ValueError(f"{title}: {error}") from error


def _check_description(folder: Path, description: dict) -> None:
    """Writes down what a run is, or compares it with what stands there."""
    path = folder / DESCRIPTION
    description = json.loads(json.dumps(description))  # with lists for tuples, as it is read back
    if not path.is_file():
        write_json(path, description)
        return
    stored = read_json_object(path)
    old, new = ({**values, **values.get("recipe", {}), "recipe": None} for values in (stored, description))
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{folder} holds a run with `{key}` {old.get(key)!r}, this one has {new.get(key)!r}: choose another "
                "--output, or delete that folder."
            )


def _folder_name(title: str) -> str:
    return re.sub(r"[^\w.-]+", "_", title)


def _hash_weights(clip: str) -> str | None:
    """Tells a CLIP in a folder from one that was there before; None for a Hub id."""
    weights = Path(clip) / "model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
