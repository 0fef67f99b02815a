"""`moeclip evaluate`: measures a trained model on images with known labels and masks."""

import argparse
import logging
import sys
from pathlib import Path

from ..data.benchmarks import find_domain
from ..data.options import add_data_options, add_domain_option, read_columns
from ..whole_file import check_writable
from .model_options import add_model_options, check_numbers, find_device, load_model


logger = logging.getLogger(__name__)

DESCRIPTION = """\
Measures a model under the paper's protocol: image and pixel AUROC and average precision per object class and their
mean over the classes, at the model's input size. Writes them as JSON and prints them as a table in percent."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a trained model on images with known labels and masks",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(parser, "test data", required=True)
    add_domain_option(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="results file to write, e.g. results.json")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluates the model that the arguments name.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If an argument, the model or the data is not what it should be.
        OSError: If a file or folder does not exist.
    """
    from moeclip_hf.data import load_anomaly_dataset
    from moeclip_hf.evaluation import evaluate_model, format_results, write_results
    from moeclip_hf.model_identity import describe_model
    from moeclip_hf.provenance import get_commit

    check_numbers(args)
    if Path(args.output).is_dir():
        raise ValueError(f"--output {args.output} is a folder: name a file in it, e.g. {args.output}/results.json.")
    try:
        check_writable(args.output)
    except OSError as error:
        raise ValueError(
            f"--output {args.output} cannot be written ({error.strerror}): name a file in a folder that takes new files."
        ) from error
    device = find_device(args.device)
    dataset = load_anomaly_dataset(
        args.data, root=args.root, split=args.split, columns=read_columns(args), object_name=args.object_name
    )
    model, processor = load_model(args, device)
    results = evaluate_model(
        model,
        processor,
        dataset,
        smoothing=args.domain or find_domain(args.data, args.root),
        mask_threshold=args.mask_threshold,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    source = {"data": args.data, "root": args.root, "split": args.split, "commit": get_commit()}
    about = describe_model(model, args.model) | source
    results["meta"] = about | {key: value for key, value in results["meta"].items() if key not in about}
    write_results(results, args.output)
    sys.stdout.write(f"{format_results(results)}\n")
    logger.info("%s holds these results.", args.output)
