"""The steps from a CLIP and a folder of images to a trained model, shared by `moeclip train` and `examples/train.py`."""

import argparse
import glob
import logging
import os

import datasets
import torch
from transformers import set_seed
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..data import AffineAugmentation, AnomalyDetectionDataset, load_anomaly_dataset
from ..data.benchmarks import find_benchmark, find_domain
from ..data.options import read_columns
from ..hub import RECIPE_NAME
from ..modeling_moeclip import MoECLIPForAnomalyDetection
from ..processing_moeclip import MoECLIPProcessor
from .arguments import MoECLIPTrainingArguments
from .options import get_recipe_changes
from .presets import get_preset
from .recipe_file import Recipe, parse_changes, read_recipe, write_recipe
from .trainer import MoECLIPTrainer


logger = logging.getLogger(__name__)


def make_recipe(options: argparse.Namespace) -> Recipe:
    """Makes the recipe of a run from the file, if one is named, and the options, which count more.

    Args:
        options (`argparse.Namespace`):
            As `add_training_options` reads them. Those that the recipe decides are set to its values.

    Returns:
        [`Recipe`]: The recipe.

    Raises:
        SystemExit: If neither names a CLIP, or training data.
        ValueError: If the file or `--set` is wrong.
        OSError: If the file cannot be read.
    """
    recipe = Recipe() if options.recipe is None else read_recipe(options.recipe)
    recipe = recipe.change(get_recipe_changes(options) | parse_changes(options.set, "--set"))
    settle_options(options, recipe)
    return recipe


def settle_options(options: argparse.Namespace, recipe: Recipe) -> None:
    """Sets the options that say where CLIP and data are to what the recipe decided.

    Args:
        options (`argparse.Namespace`): The options of `moeclip train` or `moeclip ablate`.
        recipe ([`Recipe`]): The recipe.

    Raises:
        SystemExit: If it names no CLIP, or no training data.
    """
    missing = [f"--{name}" for name in ("clip", "data") if name not in recipe.values]
    if missing:
        options.usage_error(f"the following arguments are required, here or in a recipe: {', '.join(missing)}")
    options.clip, options.data = recipe.values["clip"], recipe.values["data"]


def build_arguments(options: argparse.Namespace, recipe: Recipe) -> MoECLIPTrainingArguments:
    """Turns the options into training arguments.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.
        recipe ([`Recipe`]): What is trained.

    Returns:
        [`MoECLIPTrainingArguments`]: The arguments, on an accelerator if there is one.

    Raises:
        ValueError: If a value is out of its range, or the package of a target of `--report-to` is missing.
    """
    _check_report_targets(options.report_to)
    strategy = "epoch" if options.save_steps is None else "steps"
    arguments = {"eval_strategy": "no"}
    if options.validation_data is not None:
        arguments = {
            "eval_smoothing": options.domain or find_domain(options.validation_data, options.validation_root),
            "eval_strategy": strategy,
            "eval_steps": options.save_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": options.metric,
        }
    if options.save_steps is not None:
        arguments["save_steps"] = options.save_steps
    return MoECLIPTrainingArguments(
        options.output,
        **recipe.training_arguments,
        **get_run_arguments(options, recipe),
        recipe=recipe.name,
        disable_tqdm=False,
        save_strategy=strategy,
        save_total_limit=2,
        report_to=options.report_to,
        **arguments,
    )


def _check_report_targets(targets: list[str]) -> None:
    """Finds a missing package before the data are loaded; names that transformers does not know are its own to refuse."""
    for target in set(targets) & set(INTEGRATION_TO_CALLBACK) - set(get_available_reporting_integrations()):
        raise ValueError(
            f"`--report-to {target}` needs a package that is not installed: install it, or leave {target} out."
        )


def get_run_arguments(options: argparse.Namespace, recipe: Recipe) -> dict:
    """Gives the training arguments that say how a run is computed, and what its record says.

    Args:
        options (`argparse.Namespace`): As `add_run_options` and `add_data_options` read them.
        recipe ([`Recipe`]): What is trained.

    Returns:
        `dict`: Arguments of [`MoECLIPTrainingArguments`].

    Raises:
        ValueError: If the recipe is for a GPU and there is none, or a benchmark lacks its folder.
    """
    on_cpu = options.cpu or not torch.accelerator.is_available()
    if on_cpu and recipe.values.get("fp16"):
        raise ValueError("`--precision fp16` needs a GPU: choose fp32 or bf16.")
    benchmark = find_benchmark(options.data, options.root)
    return {
        "use_cpu": on_cpu,
        "activation_checkpointing": options.activation_checkpointing,
        "dataloader_num_workers": options.num_workers,
        "dataloader_persistent_workers": options.num_workers > 0,
        "logging_steps": options.logging_steps,
        "train_data": options.data,
        "train_benchmark": None if benchmark is None else benchmark.key,
    }


def build_model(recipe: Recipe) -> tuple[MoECLIPForAnomalyDetection, MoECLIPProcessor]:
    """Builds a fresh model on the CLIP, and its processor.

    Args:
        recipe ([`Recipe`]): What is trained.

    Returns:
        `tuple`: The model, its new weights drawn from the seed, and the processor.

    Raises:
        OSError: If there is no such CLIP.
        ValueError: If it is no CLIP with a tokenizer, or the image size or a field does not fit it.
    """
    set_seed(recipe.seed)
    clip = recipe.values["clip"]
    from_clip = recipe.values.get("projections_from_clip", False)
    model = MoECLIPForAnomalyDetection.from_clip(clip, projections_from_clip=from_clip, **get_model_arguments(recipe))
    trained, total = model.get_nb_trainable_parameters()
    logger.info(
        "trainable params: %s || all params: %s || trainable%%: %.4f",
        f"{trained:,d}", f"{total:,d}", 100 * trained / total,
    )  # fmt: skip
    return model, MoECLIPProcessor.from_clip(clip, model.config)


def get_model_arguments(recipe: Recipe) -> dict:
    """Gives the arguments by which `from_clip` builds a recipe's model.

    Args:
        recipe ([`Recipe`]): What is trained.

    Returns:
        `dict`: Image size, activation and fields of [`MoECLIPConfig`], the seed of the experts among them.

    Raises:
        ValueError: If there is no such preset.
    """
    arguments = {"moe_lora": {}, **recipe.model_fields}
    if arguments["moe_lora"] is not None:
        arguments["moe_lora"] = {**arguments["moe_lora"], "seed": recipe.seed}
    if arguments.get("feature_layers") is None:
        arguments.pop("feature_layers", None)  # the ends of the tower's quarters
    if arguments.get("hidden_act") is None:
        arguments["hidden_act"] = get_preset(recipe.preset).hidden_act
    return {**arguments, "image_size": recipe.values.get("image_size")}


def load_training_data(
    options: argparse.Namespace, recipe: Recipe, processor: MoECLIPProcessor
) -> AnomalyDetectionDataset:
    """Loads the training data.

    Args:
        options (`argparse.Namespace`): As `add_data_options` reads them, settled by the recipe.
        recipe ([`Recipe`]): What is trained.
        processor ([`MoECLIPProcessor`]): Prepares the images.

    Returns:
        [`AnomalyDetectionDataset`]: The samples, augmented if the recipe says so.

    Raises:
        FileNotFoundError: If the data do not exist.
        ValueError: If they cannot be read.
    """
    samples = make_training_samples(load_training_images(options), recipe, processor, options.mask_threshold)
    if samples.num_unknown_masks:
        logger.info(
            "%d of %d images train on their image label alone: without a known mask they skip the segmentation loss.",
            samples.num_unknown_masks, len(samples),
        )  # fmt: skip
    return samples


def load_training_images(options: argparse.Namespace) -> datasets.Dataset:
    """Loads the images that are trained on, as they lie.

    Args:
        options (`argparse.Namespace`): As `add_data_options` reads them, settled by the recipe.

    Returns:
        `datasets.Dataset`: As `load_anomaly_dataset` returns it.

    Raises:
        FileNotFoundError: If the data do not exist.
        ValueError: If they cannot be read.
    """
    return load_anomaly_dataset(
        options.data,
        root=options.root,
        split=options.split,
        columns=read_columns(options),
        object_name=options.object_name,
    )


def make_training_samples(
    images: datasets.Dataset, recipe: Recipe, processor: MoECLIPProcessor, mask_threshold: int
) -> AnomalyDetectionDataset:
    """Makes the samples that a recipe trains on.

    Args:
        images (`datasets.Dataset`): As `load_anomaly_dataset` returns them.
        recipe ([`Recipe`]): What is trained.
        processor ([`MoECLIPProcessor`]): Prepares the images.
        mask_threshold (`int`): A pixel is anomalous if its mask is greater.

    Returns:
        [`AnomalyDetectionDataset`]: The samples, augmented if the recipe says so.

    Raises:
        ValueError: If the threshold is out of its range.
    """
    augmentation = AffineAugmentation(recipe.seed) if recipe.values.get("augmentation", True) else None
    return AnomalyDetectionDataset(images, processor.image_processor, augmentation, mask_threshold=mask_threshold)


def load_other_images(options: argparse.Namespace, kind: str) -> datasets.Dataset:
    """Loads images that are not trained on: those of `--validation-data` or of `--test-data`.

    Args:
        options (`argparse.Namespace`): As the command reads them, settled by the recipe.
        kind (`str`): `"validation"` or `"test"`.

    Returns:
        `datasets.Dataset`: As `load_anomaly_dataset` returns it.

    Raises:
        FileNotFoundError: If the data do not exist.
        ValueError: If they cannot be read or are the training data.
    """
    data, root, split = (getattr(options, f"{kind}_{name}") for name in ("data", "root", "split"))
    is_same_source = os.path.realpath(data) == os.path.realpath(options.data)
    if is_same_source and (split or "test") == (options.split or "test"):  # the default of a folder in MVTec layout
        raise ValueError(f"`--{kind}-data` ({data}) must not be the training data: give other images.")
    return load_anomaly_dataset(
        data,
        root=root,
        split=split,
        columns=read_columns(options) if is_same_source else None,
        object_name=options.object_name if is_same_source else None,
    )


def load_validation_data(options: argparse.Namespace, processor: MoECLIPProcessor) -> AnomalyDetectionDataset | None:
    """Loads the data on which the best checkpoint is chosen.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them, settled by the recipe.
        processor ([`MoECLIPProcessor`]): Prepares the images.

    Returns:
        [`AnomalyDetectionDataset`] or `None`: The samples, None without validation data.

    Raises:
        FileNotFoundError: If the data do not exist.
        ValueError: If they cannot be read, are the training data, or do not define the metric.
    """
    if options.validation_data is None:
        return None
    dataset = load_other_images(options, "validation")
    labels, class_names = list(dataset["label"]), list(dataset["class_name"])
    # a metric is a mean over classes: one class must define it
    has_both_kinds = len(set(zip(class_names, labels, strict=True))) > len(set(class_names))
    if options.metric.startswith("image") and not has_both_kinds:
        raise ValueError(
            f"`--metric {options.metric}` needs an object with normal and anomalous images in "
            f"{options.validation_data}: choose loss."
        )
    samples = AnomalyDetectionDataset(dataset, processor.image_processor, mask_threshold=options.mask_threshold)
    if options.metric.startswith("pixel") and samples.num_unknown_masks == len(samples):
        raise ValueError(f"`--metric {options.metric}` needs masks in {options.validation_data}: choose image_auroc.")
    return samples


def warn_of_earlier_run(options: argparse.Namespace) -> None:
    """Says when the output folder holds checkpoints that this run will not continue.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.
    """
    earlier = glob.glob(os.path.join(glob.escape(options.output), "checkpoint-*"))
    if earlier and not options.resume_from_checkpoint:
        logger.warning(
            "%s holds %d checkpoints of an earlier run, which are not continued: --resume-from-checkpoint would.",
            options.output, len(earlier),
        )  # fmt: skip


def save_result(trainer: MoECLIPTrainer, options: argparse.Namespace, recipe: Recipe) -> None:
    """Saves the trained model and its processor in the output folder, to be read by `from_pretrained`.

    Args:
        trainer ([`MoECLIPTrainer`]): After training.
        options (`argparse.Namespace`): As `add_training_options` reads them.
        recipe ([`Recipe`]): What was trained; it goes beside the model.
    """
    if trainer.is_world_process_zero():
        trainer.model.save_pretrained(options.output, adapters_only=options.adapters_only)
        trainer.processing_class.save_pretrained(options.output)
        trainer.save_record(options.output)
        write_recipe(os.path.join(options.output, RECIPE_NAME), recipe)
        logger.info("The model is in %s.", options.output)
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()


def run_training(options: argparse.Namespace) -> MoECLIPTrainer:
    """Trains a model as the options say, and saves it.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.

    Returns:
        [`MoECLIPTrainer`]: After training.

    Raises:
        OSError: If a file or the CLIP does not exist.
        ValueError: If an option or the data do not fit.
    """
    recipe = make_recipe(options)
    args = build_arguments(options, recipe)
    model, processor = build_model(recipe)
    train_dataset = load_training_data(options, recipe, processor)
    eval_dataset = load_validation_data(options, processor)
    trainer = MoECLIPTrainer(
        model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, processing_class=processor
    )
    warn_of_earlier_run(options)
    trainer.train(resume_from_checkpoint=options.resume_from_checkpoint)
    save_result(trainer, options, recipe)
    return trainer
