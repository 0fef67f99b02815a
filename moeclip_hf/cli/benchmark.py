"""`moeclip benchmark`: measures a trained model on the paper's benchmarks."""

import argparse
import logging
import os
import sys

from .model_options import add_model_options, check_numbers, find_device, load_model


logger = logging.getLogger(__name__)

STAGES = ("loading", "model", "metrics", "writing")

DESCRIPTION = """\
Measures a model under the paper's protocol on its 14 benchmarks, or on those of them that are there: image and pixel
AUROC and average precision per object, per data set, and their means over the data sets where they are defined. Writes
<benchmark>.json for each data set and the summary results.json; `moeclip report` lays them beside the paper's figures.

A run that was interrupted goes on at the data set where it stopped: call it again with the same --output. On several
processes: `torchrun --nproc_per_node N -m moeclip_hf.cli benchmark ...`, or `accelerate launch -m moeclip_hf.cli ...`.
The results are those of one process."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    from ..data.benchmarks import BENCHMARKS

    parser = subparsers.add_parser(
        "benchmark",
        help="measure a trained model on the paper's benchmarks",
        description=DESCRIPTION,
        epilog=f"Benchmarks: {', '.join(BENCHMARKS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data-root", required=True, metavar="FOLDER", help="folder that holds each benchmark in a folder of its name"
    )
    parser.add_argument(
        "--benchmarks",
        metavar="NAME,NAME",
        type=_split,
        help="the benchmarks to measure (default: all that are there and that the model was not trained on)",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write the results to")
    parser.add_argument(
        "--allow-trained-objects",
        action="store_true",
        help="measure also on objects that the model was trained on, and mark these results",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at a picture that cannot be read (default: count it, leave it out)"
    )
    parser.add_argument(
        "--mask-threshold",
        type=int,
        metavar="VALUE",
        help="a pixel is anomalous if its mask is greater; 127 suits masks saved as JPEG (default: 0, as in the paper)",
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluates the model that the arguments name.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If an argument, the model or the data is not what it should be.
        OSError: If a file or folder does not exist or cannot be written.
    """
    import torch

    from moeclip_hf.benchmarking import SUMMARY_NAME, find_benchmarks, run_benchmarks
    from moeclip_hf.evaluation import format_results

    check_numbers(args)
    if os.path.isfile(args.output):
        raise ValueError(f"--output {args.output} is a file: name a folder.")
    find_benchmarks(args.data_root, args.benchmarks)  # before the model is loaded
    device, is_main_process = _join_processes(args.device)

    def report(results: dict, is_new: bool) -> None:
        meta = results["meta"]
        if not is_main_process:
            return
        if is_new:
            title = f"{meta['title']}{' (objects of the training)' if meta['trained_objects'] else ''}"
            sys.stdout.write(f"\n{title}\n{format_results(results)}\n")
            sys.stdout.flush()
            logger.info("%s: %s", meta["benchmark"], _describe_time(meta))
        else:
            logger.info("%s: kept from %s.", meta["benchmark"], os.path.join(args.output, f"{meta['benchmark']}.json"))

    model, processor = load_model(args, device)
    summary = run_benchmarks(
        model,
        processor,
        args.model,
        args.data_root,
        args.output,
        benchmarks=args.benchmarks,
        allow_trained_objects=args.allow_trained_objects,
        strict=args.strict,
        mask_threshold=args.mask_threshold,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        is_main_process=is_main_process,
        report=report,
    )
    if is_main_process:
        sys.stdout.write(f"\n{_format_summary(summary)}\n")
        logger.info("%s holds these results.", os.path.join(args.output, SUMMARY_NAME))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _split(names: str) -> list[str]:
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{names!r} names no benchmark: write such as mvtec,btad, or leave it out")
    return found


def _join_processes(device: str | None):
    """Gives this process's device and whether it is the first one of the run."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return find_device(device), True
    if device not in (None, "cpu"):
        raise ValueError(f"--device {device}: several processes take one GPU each, so give cpu or leave it out.")
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    if not state.is_main_process:
        logging.getLogger("moeclip_hf").setLevel(logging.ERROR)
    return state.device, state.is_main_process


def _describe_time(meta: dict) -> str:
    stages = ", ".join(f"{stage} {meta['stage_seconds'].get(stage, 0):.1f}" for stage in STAGES)
    return f"{meta['num_images']} images in {meta['seconds']:.1f} s ({stages})."


def _format_summary(summary: dict) -> str:
    """Lays the summary out; a star marks the data sets on whose objects the model was trained."""
    from moeclip_hf.evaluation import format_results

    trained = summary["meta"]["trained_objects"]
    classes = {f"{key}*" if key in trained else key: values for key, values in summary["classes"].items()}
    lines = [format_results(summary | {"classes": classes}, "data set")]
    for key, names in trained.items():
        lines.append(f"*  {key}, which is in the mean: the model was trained on these objects: {', '.join(names)}")
    return "\n".join(lines)
