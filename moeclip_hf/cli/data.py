"""`moeclip data`: looks after data sets. `moeclip data check` says whether one is whole and readable."""

import argparse
import sys

from ..data.benchmarks import BENCHMARKS
from ..data.options import SPLIT_HELP, add_column_options, read_columns


DESCRIPTION = "Looks after data sets: `moeclip data check --help` tells more."

CHECK_DESCRIPTION = f"""\
Decodes every picture and mask of a data set and says what was found. Of one of the paper's benchmarks it is compared
with what there should be; own data should be readable, and have masks for all anomalous pictures or for none. Exit code
0 if all is as expected, 1 if not. Benchmarks: {", ".join(list(BENCHMARKS)[:7])},
{", ".join(list(BENCHMARKS)[7:])}."""

EXAMPLES = """\
examples:
  moeclip data check mvtec /data/mvtec_anomaly_detection
  moeclip data check my_parts
  moeclip data check lists/half.jsonl my_parts"""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    group = subparsers.add_parser(
        "data", help="check that a benchmark or your own data are whole and readable", description=DESCRIPTION
    )
    commands = group.add_subparsers(
        title="commands", metavar="COMMAND", required=True, help="what to do with the data set"
    )
    parser = commands.add_parser(
        "check",
        help="say what a data set holds, and what is not as it should be",
        description=CHECK_DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a benchmark's name, or own data: folder, list (*.jsonl, *.csv) or data set of the package `datasets`",
    )
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        help="the benchmark's folder, or the one that a list's paths are relative to (default: the list's own)",
    )
    parser.add_argument("--list", metavar="FILE", help="of a benchmark: the list (*.jsonl, *.csv) of its pictures")
    parser.add_argument("--split", help=SPLIT_HELP)
    add_column_options(parser)
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first picture that is missing or cannot be read"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks the data set that the arguments name.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Returns:
        `int`: 0 if all is as expected, 1 if not.

    Raises:
        OSError: If the data, the root or the list does not exist.
        ValueError: If there is nothing to read, or with `--strict` a picture cannot be read.
    """
    from ..data.checking import check_data, format_report

    report = check_data(
        args.data,
        args.root,
        list_file=args.list,
        split=args.split,
        columns=read_columns(args),
        strict=args.strict,
    )
    sys.stdout.write(f"{format_report(report)}\n")
    return 1 if report.differences else 0
