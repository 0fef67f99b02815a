"""`moeclip demo`: trains and tests on the built-in benchmark."""

import argparse
import os
import sys


DESCRIPTION = """\
Draws a benchmark of textures and objects with defects, trains MoECLIP on half of its categories, on a tiny CLIP that
comes with the package, and finds the defects of the other half, which it has never seen. Leaves in the output folder:
data/ (the benchmark, in MVTec AD's layout), model/ (the trained model), results.json and sheet.png."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "demo",
        help="train and test on the built-in benchmark: no download, a few minutes on a CPU",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", default="outputs/demo", metavar="FOLDER", help="folder to write to (default: outputs/demo)"
    )
    parser.add_argument(
        "--seed", type=int, default=111, metavar="N", help="seed of first weights and training (default: 111)"
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="instead train the method with and without its parts, over several seeds, and write ablation.json "
        "and ablation.csv; takes about as long as a dozen demos, and goes on where it was interrupted",
    )
    parser.add_argument(
        "--num-seeds", type=int, default=3, metavar="N", help="seeds of the ablation, from --seed on (default: 3)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Runs the demo or its ablation.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If an argument is out of range.
        OSError: If the output folder cannot be written.
    """
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}, but must be 0 or more.")
    if args.num_seeds < 1:
        raise ValueError(f"--num-seeds is {args.num_seeds}, but must be 1 or more.")
    if os.path.isfile(args.output):
        raise ValueError(f"--output {args.output} is a file: name a folder.")
    if args.ablation:
        from moeclip_hf.demo.ablation import run_demo_ablation

        run_demo_ablation(args.output, seeds=tuple(range(args.seed, args.seed + args.num_seeds)), report=_write)
    else:
        from moeclip_hf.demo.run import run_demo

        run_demo(args.output, seed=args.seed, report=_write)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
