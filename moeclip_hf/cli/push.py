"""`moeclip push`: sends a model folder to the Hub, with a card that is told from its files."""

import argparse
import logging
import sys


logger = logging.getLogger(__name__)

DESCRIPTION = """\
Sends a model to the Hub in one commit: weights (safetensors only), processor, code, and what lies in FOLDER of recipe,
training record and results; checkpoints, optimizer states and everything else stay here. The card is told from these
files: it states no figure without a results file and no training data without a training record. Absolute paths in the
JSON files are cut to their last part. `--dry-run` writes the very files into a folder, to be read before they are sent.
Log in by `hf auth login`, or set HF_TOKEN to a token with write access."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "push",
        help="send a trained model to the Hub, with a model card",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="model folder, e.g. the --output of `moeclip train`")
    parser.add_argument("repo_id", metavar="USER/NAME", help="repository on the Hub, made if missing")
    parser.add_argument(
        "--private", action="store_true", help="the repository must be private: a public one is refused, not changed"
    )
    parser.add_argument(
        "--dry-run", metavar="FOLDER", help="write the repository into this new folder instead of sending it"
    )
    parser.add_argument(
        "--results",
        nargs="+",
        metavar="FILE",
        help="results files of this model (default: those in FOLDER and in FOLDER/results)",
    )
    parser.add_argument(
        "--example",
        metavar="IMAGE",
        help="picture to show on the card with its anomaly map; 'drawn' takes a drawn leaf with a hole "
        "(default: no picture)",
    )
    parser.add_argument("--object-name", metavar="NAME", help="what is on the picture of --example")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Sends, or writes, the repository that the arguments name.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If an argument or a file is not what it should be.
        OSError: If a file is missing, the Hub refuses or cannot be reached.
    """
    from moeclip_hf.hub import build_repository, check_repo_id, push_repository, write_repository

    check_repo_id(args.repo_id)
    example = _read_example(args.example, args.object_name)
    files = build_repository(args.folder, args.repo_id, results=args.results, example=example)
    if args.dry_run is not None:
        write_repository(files, args.dry_run)
        sys.stdout.write("".join(f"{path}\n" for path in files))
        logger.info("%s holds what would be sent to %s.", args.dry_run, args.repo_id)
    else:
        try:
            url = push_repository(files, args.repo_id, private=args.private)
        except OSError:
            sys.stderr.write("\n")  # the bar of an upload that broke has not ended its line
            raise
        logger.info("%s holds the model.", url)


def _read_example(source: str | None, object_name: str | None):
    from PIL import Image, ImageOps, UnidentifiedImageError

    from moeclip_hf.demo import draw_example

    if source is None:
        if object_name is not None:
            raise ValueError(f"--object-name {object_name} belongs to --example: name the picture too.")
        return None
    if source == "drawn":
        return draw_example("tree_leaf", "hole"), object_name or "tree leaf"
    if object_name is None:
        raise ValueError(f"--example {source} needs --object-name: say what is on the picture.")
    try:
        with Image.open(source) as image:
            return ImageOps.exif_transpose(image).convert("RGB"), object_name
    except UnidentifiedImageError as error:
        raise ValueError(f"--example {source} is no picture that can be read.") from error
