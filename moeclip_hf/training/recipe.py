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
from .presets import get_preset
from .trainer import MoECLIPTrainer


logger = logging.getLogger(__name__)


def build_arguments(options: argparse.Namespace) -> MoECLIPTrainingArguments:
    """Turns the options into training arguments.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.

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
    on_cpu = options.cpu or not torch.accelerator.is_available()
    if on_cpu and options.precision == "fp16":
        raise ValueError("`--precision fp16` needs a GPU: choose fp32 or bf16.")
    return MoECLIPTrainingArguments(
        options.output,
        preset=options.preset,
        train_data=options.data,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        learning_rate=options.learning_rate,
        lr_milestones=options.lr_milestones,
        eval_smoothing=options.smoothing,
        seed=options.seed,
        bf16=options.precision == "bf16",
        fp16=options.precision == "fp16",
        use_cpu=on_cpu,
        activation_checkpointing=options.activation_checkpointing,
        dataloader_num_workers=options.num_workers,
        dataloader_persistent_workers=options.num_workers > 0,
        logging_steps=options.logging_steps,
        save_strategy=strategy,
        save_total_limit=2,
        report_to=options.report_to,
        disable_tqdm=False,
        **arguments,
    )


def build_model(options: argparse.Namespace) -> tuple[MoECLIPForAnomalyDetection, MoECLIPProcessor]:
    """Builds a fresh model on the CLIP, and its processor.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.

    Returns:
        `tuple`: The model, its new weights drawn from the seed, and the processor.

    Raises:
        OSError: If there is no such CLIP.
        ValueError: If it is no CLIP with a tokenizer, or the image size does not fit it.
    """
    set_seed(options.seed)
    hidden_act = get_preset(options.preset).hidden_act
    model = MoECLIPForAnomalyDetection.from_clip(
        options.clip, image_size=options.image_size, hidden_act=hidden_act, moe_lora={"seed": options.seed}
    )
    trained, total = model.get_nb_trainable_parameters()
    logger.info(
        "trainable params: %s || all params: %s || trainable%%: %.4f",
        f"{trained:,d}", f"{total:,d}", 100 * trained / total,
    )  # fmt: skip
    return model, MoECLIPProcessor.from_clip(options.clip, model.config)


def load_training_data(options: argparse.Namespace, processor: MoECLIPProcessor) -> AnomalyDetectionDataset:
    """Loads the training data.

    Args:
        options (`argparse.Namespace`): As `add_training_options` reads them.
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
        options (`argparse.Namespace`): As `add_training_options` reads them.
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
    args = build_arguments(options)
    model, processor = build_model(options)
    train_dataset = load_training_data(options, processor)
    eval_dataset = load_validation_data(options, processor)
    trainer = MoECLIPTrainer(
        model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, processing_class=processor
    )
    warn_of_earlier_run(options)
    trainer.train(resume_from_checkpoint=options.resume_from_checkpoint)
    save_result(trainer, options)
    return trainer
