"""The options of a training run on a command line, alike for `moeclip train` and `examples/train.py`.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import argparse

from ..data.options import DATA_HELP, ROOT_HELP, SPLIT_HELP, add_column_options, add_mask_option, add_object_option


METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "loss")
PRECISIONS = ("fp32", "bf16", "fp16")
PRESET_NAMES = ("paper", "released")
SMOOTHINGS = ("industrial", "medical")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training run to a command line.

    Args:
        parser (`argparse.ArgumentParser`): Where to add them.
    """
    data = parser.add_argument_group("model and data")
    data.add_argument("--clip", required=True, metavar="ID_OR_FOLDER", help="pretrained CLIP to build on")
    data.add_argument("--data", required=True, metavar="DATA", help=f"training data: {DATA_HELP}")
    data.add_argument("--output", required=True, metavar="FOLDER", help="folder for the model and its checkpoints")
    data.add_argument("--root", metavar="FOLDER", help=ROOT_HELP)
    data.add_argument("--split", help=SPLIT_HELP)
    add_column_options(data)
    add_object_option(data)
    add_mask_option(data)
    data.add_argument(
        "--validation-data", metavar="DATA", help="other data; the checkpoint that is best on it becomes the model"
    )
    data.add_argument("--validation-root", metavar="FOLDER", help="like --root, of the validation data")
    data.add_argument("--validation-split", help="like --split, of the validation data")
    data.add_argument(
        "--metric", choices=METRICS, default="pixel_auroc", help="what is best there (default: pixel_auroc)"
    )
    data.add_argument(
        "--smoothing",
        choices=SMOOTHINGS,
        help="domain of the validation's protocol (default: the benchmark's; industrial for own data)",
    )
    data.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="input size (default: the largest up to 518 that CLIP allows)"
    )
    data.add_argument(
        "--augmentation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rotate, move and flip the training images (default: yes)",
    )
    data.add_argument(
        "--adapters-only",
        action="store_true",
        help="save the trained part alone, some MB; the CLIP is then loaded from where --clip says",
    )

    run = parser.add_argument_group("training")
    run.add_argument(
        "--preset", choices=PRESET_NAMES, default="paper", help="the paper's recipe or the released code's"
    )
    run.add_argument("--epochs", type=float, default=20, metavar="N", help="passes over the data (default: 20)")
    run.add_argument("--max-steps", type=int, default=-1, metavar="N", help="stop after so many steps")
    run.add_argument("--batch-size", type=int, default=2, metavar="N", help="images a step and process (default: 2)")
    run.add_argument(
        "--gradient-accumulation-steps", type=int, default=1, metavar="N", help="batches a step (default: 1)"
    )
    run.add_argument("--learning-rate", type=float, help="initial rate (default: the preset's)")
    run.add_argument(
        "--lr-milestones",
        type=int,
        nargs="*",
        default=[16000, 32000],
        metavar="STEP",
        help="steps at which the rate is halved (default: 16000 32000)",
    )
    run.add_argument("--seed", type=int, default=111, help="seed of everything random (default: 111)")
    run.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the computation; weights stay float32"
    )
    run.add_argument("--cpu", action="store_true", help="use no accelerator")
    run.add_argument("--activation-checkpointing", action="store_true", help="less memory, more time")
    run.add_argument("--num-workers", type=int, default=0, metavar="N", help="processes that load images (default: 0)")
    run.add_argument(
        "--logging-steps", type=int, default=50, metavar="N", help="steps between log lines (default: 50)"
    )
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
