"""The options of a training run on a command line, alike for `moeclip train` and `examples/train.py`.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import argparse

from ..data.options import add_data_options, add_domain_option


METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "loss")
PRECISIONS = ("fp32", "bf16", "fp16")
PRESET_NAMES = ("paper", "released")


# What an option is called in a recipe. None of them has a default here, so that it is known which of them were given.
RECIPE_KEY_OF_OPTION = {
    "clip": "clip",
    "data": "data",
    "image_size": "image_size",
    "augmentation": "augmentation",
    "preset": "preset",
    "epochs": "num_train_epochs",
    "max_steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "learning_rate": "learning_rate",
    "lr_milestones": "lr_milestones",
    "seed": "seed",
}


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training run to a command line.

    Args:
        parser (`argparse.ArgumentParser`): Where to add them.
    """
    recipe = parser.add_argument_group("recipe", "What counts is the command line, then --recipe, then the default.")
    recipe.add_argument(
        "--recipe", metavar="FILE", help="recipe file, such as those in hub_configs/; may name --clip and --data too"
    )
    add_recipe_options(recipe)
    recipe.add_argument("--seed", type=int, help="seed of everything random (default: 111)")

    data = parser.add_argument_group("data and output")
    add_data_options(data, "training data", required=False)
    data.add_argument("--output", required=True, metavar="FOLDER", help="folder for the model and its checkpoints")
    data.add_argument(
        "--validation-data", metavar="DATA", help="other data; the checkpoint that is best on it becomes the model"
    )
    data.add_argument("--validation-root", metavar="FOLDER", help="like --root, of the validation data")
    data.add_argument("--validation-split", help="like --split, of the validation data")
    data.add_argument(
        "--metric", choices=METRICS, default="pixel_auroc", help="what is best there (default: pixel_auroc)"
    )
    add_domain_option(data)
    data.add_argument(
        "--adapters-only",
        action="store_true",
        help="save the trained part alone, some MB; the CLIP is then loaded from where --clip says",
    )

    run = parser.add_argument_group("run")
    add_run_options(run)
    run.add_argument(
        "--save-steps", type=int, metavar="N", help="steps between checkpoints (default: one at each epoch's end)"
    )
    run.add_argument(
        "--report-to", nargs="+", default=["none"], metavar="NAME", help="tensorboard, wandb, ... (default: none)"
    )
    run.add_argument(
        "--resume-from-checkpoint",
        nargs="?",
        const=True,
        metavar="FOLDER",
        help="continue a run from this checkpoint, or from the last one in --output",
    )
    parser.set_defaults(usage_error=parser.error)


def add_recipe_options(group: argparse._ArgumentGroup) -> None:
    """Adds the options that change a recipe, all but the seed.

    Args:
        group (`argparse._ArgumentGroup`): Where to add them.
    """
    group.add_argument("--clip", metavar="ID_OR_FOLDER", help="pretrained CLIP to build on")
    group.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="input size (default: the largest up to 518 that CLIP allows)"
    )
    group.add_argument(
        "--augmentation",
        action=argparse.BooleanOptionalAction,
        help="rotate, move and flip the training images (default: yes)",
    )
    group.add_argument(
        "--preset", choices=PRESET_NAMES, help="the paper's recipe or the released code's (default: paper)"
    )
    group.add_argument("--epochs", type=float, metavar="N", help="passes over the data (default: 20)")
    group.add_argument("--max-steps", type=int, metavar="N", help="stop after so many steps")
    group.add_argument("--batch-size", type=int, metavar="N", help="images a step and process (default: 2)")
    group.add_argument("--gradient-accumulation-steps", type=int, metavar="N", help="batches a step (default: 1)")
    group.add_argument("--learning-rate", type=float, help="initial rate (default: the preset's)")
    group.add_argument(
        "--lr-milestones",
        type=int,
        nargs="*",
        metavar="STEP",
        help="steps at which the rate is halved (default: 16000 32000)",
    )
    group.add_argument(
        "--precision", choices=PRECISIONS, help="of the computation; weights stay float32 (default: fp32)"
    )
    group.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="any other value of a recipe, e.g. etf_loss_coef=0 moe_lora.num_experts=8",
    )


def add_run_options(group: argparse._ArgumentGroup) -> None:
    """Adds the options that change how a run is computed, not what.

    Args:
        group (`argparse._ArgumentGroup`): Where to add them.
    """
    group.add_argument("--cpu", action="store_true", help="use no accelerator")
    group.add_argument("--activation-checkpointing", action="store_true", help="less memory, more time")
    group.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that load images (default: 0)"
    )
    group.add_argument(
        "--logging-steps", type=int, default=50, metavar="N", help="steps between log lines (default: 50)"
    )


def get_recipe_changes(options: argparse.Namespace) -> dict:
    """Collects what the command line says by its own options; `--set` is read where recipes are.

    Args:
        options (`argparse.Namespace`): As the parser reads them.

    Returns:
        `dict`: Values by a recipe's keys, of the options that were given.
    """
    given = {key: getattr(options, name, None) for name, key in RECIPE_KEY_OF_OPTION.items()}
    changes = {key: value for key, value in given.items() if value is not None}
    if options.precision is not None:
        changes |= {"bf16": options.precision == "bf16", "fp16": options.precision == "fp16"}
    return changes
