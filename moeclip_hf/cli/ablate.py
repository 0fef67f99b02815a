"""`moeclip ablate`: trains and evaluates several recipes with several seeds."""

import argparse
import sys

from ..data.options import add_data_options, add_domain_option
from ..training.options import add_recipe_options, add_run_options


DESCRIPTION = """\
Trains each recipe once per seed on --data, evaluates it on --test-data by the paper's protocol, and prints a table:
mean and deviation over the seeds, and how alike the experts' outputs became. A recipe of an ablation names a base and
the fields that differ, as those in hub_configs/ablations do; options given here change what all runs share.

Interrupted and started again, it goes on where it stopped. --output gets ablation.json, ablation.csv and for each run
its results and its trained adapters, which `moeclip evaluate --model` takes for other test data."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "ablate",
        help="train several recipes with several seeds and compare them",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    variants = parser.add_argument_group("variants")
    variants.add_argument("--recipes", nargs="+", default=[], metavar="FILE", help="recipe files, a line each")
    variants.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("TITLE", "KEY=VALUE"),
        help="a line without a file: its title and the values that differ from the base, if any; may be repeated",
    )
    variants.add_argument("--base", metavar="FILE", help="recipe that takes the place of the base in all --recipes")
    variants.add_argument(
        "--seeds", type=_seeds, default=(0, 1, 2), metavar="N,N,...", help="seeds of each variant (default: 0,1,2)"
    )

    add_recipe_options(parser.add_argument_group("what all runs share, in place of what their base says"))

    data = parser.add_argument_group("data and output")
    add_data_options(data, "training data", required=False)
    data.add_argument("--test-data", required=True, metavar="DATA", help="what the trained models are evaluated on")
    data.add_argument("--test-root", metavar="FOLDER", help="like --root, of the test data")
    data.add_argument("--test-split", help="like --split, of the test data")
    add_domain_option(data)
    data.add_argument("--output", required=True, metavar="FOLDER", help="folder for the table and the runs")

    add_run_options(parser.add_argument_group("run"))
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> None:
    """Runs the ablation.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        SystemExit: If an argument is missing.
        OSError: If a file or a CLIP does not exist.
        ValueError: If a recipe, an option or the data do not fit.
    """
    from ..training.ablation import run_ablation
    from ..training.ablation_run import load_setting, read_variants

    variants = read_variants(args)
    run_ablation(variants, load_setting(args, variants), args.output, seeds=args.seeds, report=_write)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 0,1,2") from None


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
