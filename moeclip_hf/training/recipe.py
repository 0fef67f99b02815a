"""The steps from a CLIP and a folder of images to a trained model, shared by `moeclip train` and `examples/train.py`."""

import argparse
import glob
import logging
import os

import torch
from datasets import Image
from transformers import set_seed

from ..data import AffineAugmentation, AnomalyDetectionDataset, load_anomaly_dataset
from ..modeling_moeclip import MoECLIPForAnomalyDetection
from ..processing_moeclip import MoECLIPProcessor
from .arguments import MoECLIPTrainingArguments
from .options import get_recipe_changes
from .presets import get_preset
from .recipe_file import Recipe, parse_changes, read_recipe
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
    """Sets the options that say where things are, and what is done with them, to what the recipe decided.

    Args:
        options (`argparse.Namespace`): The options of `moeclip train` or `moeclip ablate`.
        recipe ([`Recipe`]): The recipe.

    Raises:
        SystemExit: If it names no CLIP, or no training data.
    """
    missing = [f"--{name}" for name in ("clip", "data") if name not in recipe.values]
    if missing:
        options.usage_error(f"the following arguments are required, here or in a recipe: {', '.join(missing)}")
    options.clip, options.data, options.seed = recipe.values["clip"], recipe.values["data"], recipe.seed
    options.augmentation = recipe.values.get("augmentation", True)


def build_arguments(options: argparse.Namespace, recipe: Recipe) -> MoECLIPTrainingArguments:
    """Turns the options into training arguments.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.
        recipe ([`Recipe`]): What is trained.

    Returns:
        [`MoECLIPTrainingArguments`]: The arguments, on an accelerator if there is one.

    Raises:
        ValueError: If a value is out of its range.
    """
    strategy = "epoch" if options.save_steps is None else "steps"
    arguments = {"eval_strategy": "no"}
    if options.validation_data is not None:
        arguments = {
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
        eval_smoothing=options.smoothing,
        save_strategy=strategy,
        save_total_limit=2,
        report_to=options.report_to,
        **arguments,
    )


def get_run_arguments(options: argparse.Namespace, recipe: Recipe) -> dict:
    """Gives the training arguments that say how a run is computed, and what its record says.

    Args:
        options (`argparse.Namespace`): As `add_run_options` and `add_data_options` read them.
        recipe ([`Recipe`]): What is trained.

    Returns:
        `dict`: Arguments of [`MoECLIPTrainingArguments`].

    Raises:
        ValueError: If the recipe is for a GPU and there is none.
    """
    on_cpu = options.cpu or not torch.accelerator.is_available()
    if on_cpu and recipe.values.get("fp16"):
        raise ValueError("`--precision fp16` needs a GPU: choose fp32 or bf16.")
    return {
        "use_cpu": on_cpu,
        "activation_checkpointing": options.activation_checkpointing,
        "dataloader_num_workers": options.num_workers,
        "dataloader_persistent_workers": options.num_workers > 0,
        "logging_steps": options.logging_steps,
        "train_data": options.data,
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
    model = MoECLIPForAnomalyDetection.from_clip(clip, **get_model_arguments(recipe))
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
    if arguments.get("hidden_act") is None:
        arguments["hidden_act"] = get_preset(recipe.preset).hidden_act
    return {**arguments, "image_size": recipe.values.get("image_size")}


def load_training_data(options: argparse.Namespace, processor: MoECLIPProcessor) -> AnomalyDetectionDataset:
    """Loads the training data.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them, settled by the recipe.
        processor ([`MoECLIPProcessor`]): Prepares the images.

    Returns:
        [`AnomalyDetectionDataset`]: The samples, augmented if asked for.

    Raises:
        FileNotFoundError: If the data do not exist.
        ValueError: If they cannot be read.
    """
    dataset = load_anomaly_dataset(options.data, root=options.root, split=options.split)
    augmentation = AffineAugmentation(options.seed) if options.augmentation else None
    return AnomalyDetectionDataset(dataset, processor.image_processor, augmentation)


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
    if os.path.realpath(options.validation_data) == os.path.realpath(options.data):
        raise ValueError(
            f"`--validation-data` ({options.validation_data}) must not be the training data: give other images."
        )
    dataset = load_anomaly_dataset(
        options.validation_data, root=options.validation_root, split=options.validation_split
    )
    labels, class_names = list(dataset["label"]), list(dataset["class_name"])
    # a metric is a mean over classes: one class must define it
    has_both_kinds = len(set(zip(class_names, labels, strict=True))) > len(set(class_names))
    if options.metric.startswith("image") and not has_both_kinds:
        raise ValueError(
            f"`--metric {options.metric}` needs an object with normal and anomalous images in "
            f"{options.validation_data}: choose loss."
        )
    has_masks = any(row["mask"] is not None for row in dataset.cast_column("mask", Image(decode=False)))
    if options.metric.startswith("pixel") and not has_masks:
        raise ValueError(f"`--metric {options.metric}` needs masks in {options.validation_data}: choose image_auroc.")
    return AnomalyDetectionDataset(dataset, processor.image_processor)


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


def save_result(trainer: MoECLIPTrainer, options: argparse.Namespace) -> None:
    """Saves the trained model and its processor in the output folder, to be read by `from_pretrained`.

    Args:
        trainer ([`MoECLIPTrainer`]): After training.
        options (`argparse.Namespace`): As `add_training_options` reads them.
    """
    if trainer.is_world_process_zero():
        trainer.model.save_pretrained(options.output, adapters_only=options.adapters_only)
        trainer.processing_class.save_pretrained(options.output)
        trainer.save_record(options.output)
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
    train_dataset = load_training_data(options, processor)
    eval_dataset = load_validation_data(options, processor)
    trainer = MoECLIPTrainer(
        model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, processing_class=processor
    )
    warn_of_earlier_run(options)
    trainer.train(resume_from_checkpoint=options.resume_from_checkpoint)
    save_result(trainer, options)
    return trainer
