"""Options of the commands that measure a model on images, and what they stand for."""

import argparse
import os


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name a model and say how it is run.

    Args:
        parser (`argparse.ArgumentParser`): A command's parser.
    """
    parser.add_argument("--model", required=True, metavar="ID_OR_FOLDER", help="model folder or Hub id")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images per forward pass (default: 8)")
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that decode images (default: 0)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="precision of the model (default: float32)",
    )


def check_numbers(args: argparse.Namespace) -> None:
    """Checks the numbers among the options, before anything is loaded.

    Args:
        args (`argparse.Namespace`): The parsed arguments, with `--mask-threshold`.

    Raises:
        ValueError: If one is out of range.
    """
    if args.batch_size < 1:
        raise ValueError(f"--batch-size is {args.batch_size}, but must be 1 or more.")
    if args.num_workers < 0:
        raise ValueError(f"--num-workers is {args.num_workers}, but must be 0 or more.")
    if args.mask_threshold is not None and args.mask_threshold < 0:
        raise ValueError(f"--mask-threshold is {args.mask_threshold}, but must be 0 or more.")


def find_device(name: str | None):
    """Finds the device that is asked for, and makes sure that it can be used.

    Args:
        name (`str` or `None`): A device's name; None for a GPU if there is one.

    Returns:
        `torch.device`: the device.

    Raises:
        ValueError: If it cannot be used.
    """
    import torch

    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def load_model(args: argparse.Namespace, device) -> tuple:
    """Loads the model that is asked for, and its processor.

    Args:
        args (`argparse.Namespace`): The parsed arguments.
        device (`torch.device`): Where the model shall be.

    Returns:
        `tuple`: the model in the asked precision, and its processor.

    Raises:
        OSError: If there is no such model.
        ValueError: If it has no processor, or its files do not fit together.
    """
    import torch
    from transformers.utils import PROCESSOR_NAME

    from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor

    if os.path.isdir(args.model) and not os.path.isfile(os.path.join(args.model, PROCESSOR_NAME)):
        raise ValueError(
            f"--model {args.model} has no {PROCESSOR_NAME}: name a folder that `moeclip train` wrote, or one of `moeclip "
            "convert --tokenizer`."
        )
    # The model first: transformers' loading of a processor hides why the Hub refused.
    model = MoECLIPForAnomalyDetection.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
    return model.to(device), MoECLIPProcessor.from_pretrained(args.model)
