"""`moeclip report`: lays the results of `moeclip benchmark` beside the paper's figures."""

import argparse
import os
import sys


FORMATS = ("markdown", "csv", "latex")

DESCRIPTION = """\
Makes a table of the results of `moeclip benchmark` beside the figures that the paper prints, with the difference, in
percent. Folders of the same recipe and different seeds make one table, of mean and standard deviation; every other
recipe makes its own. Where both trainings of the paper are there, on visa and on mvtec with the same settings and
seeds, the first table is the paper's: VisA by the model trained on mvtec, the others by the one trained on visa."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "report",
        help="lay the benchmarks' results beside the paper's figures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="an --output of `moeclip benchmark`")
    parser.add_argument("--format", default="markdown", choices=FORMATS, help="form of the table (default: markdown)")
    parser.add_argument("--output", metavar="FILE", help="file to write the table to (default: print it)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Makes the table that the arguments ask for.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If a folder does not hold results.
        OSError: If a folder does not exist or the file cannot be written.
    """
    if args.output is not None and os.path.isdir(args.output):
        raise ValueError(f"--output {args.output} is a folder: name a file in it.")
    from ..reporting import format_tables, read_tables
    from ..whole_file import write_text

    text = format_tables(read_tables(args.folders), args.format)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
