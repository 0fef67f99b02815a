"""The options on a command line that say how own data are read, alike for every command that takes `--data`.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import argparse

from .benchmarks import DOMAINS


DATA_HELP = (
    "folder in MVTec layout, plain folders (good/ and others), list (*.jsonl, *.csv), data set of the package `datasets`"
    " (Hub id or folder), or a benchmark's key with its folder as --root"
)
ROOT_HELP = "folder of a benchmark, or that a list's paths are relative to (default: the list's own)"
SPLIT_HELP = "MVTec layout: test (default) or train; data set of the package `datasets`: one of its splits"

# For each column of our data sets the option that says what a data set of the package `datasets` calls it.
_OPTION_OF_COLUMN = {
    "image": "image_column",
    "mask": "mask_column",
    "label": "label_column",
    "class_name": "class_column",
}


def add_column_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the options for the columns of data sets of the package `datasets`.

    Args:
        parser (`argparse.ArgumentParser` or one of its groups): Where to add them.
    """
    for column, option in _OPTION_OF_COLUMN.items():
        what = column.partition("_")[0]
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            metavar="NAME",
            help=f"data set of the package `datasets`: its column for the {what} (default: {column})",
        )


def read_columns(options: argparse.Namespace) -> dict[str, str] | None:
    """Turns the options of `add_column_options` into the argument `columns` of `load_anomaly_dataset`.

    Args:
        options (`argparse.Namespace`): The parsed options.

    Returns:
        `dict[str, str]` or `None`: what the data set calls our columns; None if no option was given.
    """
    given = {column: getattr(options, option) for column, option in _OPTION_OF_COLUMN.items()}
    return {column: name for column, name in given.items() if name is not None} or None


def add_data_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, what: str, *, required: bool) -> None:
    """Adds the options that name a data set and say how it is read.

    Args:
        parser (`argparse.ArgumentParser` or one of its groups): Where to add them.
        what (`str`): What the data are for, the beginning of the help of `--data`.
        required (`bool`): Whether `--data` must be given.
    """
    parser.add_argument("--data", required=required, metavar="DATA", help=f"{what}: {DATA_HELP}")
    parser.add_argument("--root", metavar="FOLDER", help=ROOT_HELP)
    parser.add_argument("--split", help=SPLIT_HELP)
    add_column_options(parser)
    parser.add_argument(
        "--object-name", metavar="WORDS", help="the object in the prompts, for every image (default: its class's name)"
    )
    parser.add_argument(
        "--mask-threshold",
        type=int,
        default=0,
        metavar="VALUE",
        help="a pixel is anomalous if its mask is greater: 0 as the paper (default), 127 for masks saved as JPEG",
    )


def add_domain_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the option for the domain of the data that a model is measured on.

    Args:
        parser (`argparse.ArgumentParser` or one of its groups): Where to add it.
    """
    parser.add_argument(
        "--domain",
        choices=DOMAINS,
        help="smoothing of the maps and fusion of the image scores (default: the benchmark's; industrial for own data)",
    )
