"""`moeclip train`: trains MoECLIP on a pretrained CLIP and own images, in one process."""

import argparse

from ..training.options import add_training_options


DESCRIPTION = """\
Trains MoECLIP on a frozen CLIP, with the paper's recipe by default. The model in --output is read by
`moeclip evaluate --model` and by `from_pretrained`. Several GPUs: `accelerate launch examples/train.py` with the same
options."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "train",
        help="train MoECLIP on a pretrained CLIP and your own images",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_training_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Trains and saves the model.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        OSError: If a file or the CLIP does not exist.
        ValueError: If an option or the data do not fit.
    """
    from ..training.recipe import run_training

    run_training(args)
