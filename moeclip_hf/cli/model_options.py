"""Options of the commands that run a model on images."""

import argparse


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how a model is run.

    Args:
        parser (`argparse.ArgumentParser`): A command's parser.
    """
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


def check_counts(args: argparse.Namespace) -> None:
    """Checks the numbers among the options.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If one is out of range.
    """
    if args.batch_size < 1:
        raise ValueError(f"--batch-size is {args.batch_size}, but must be 1 or more.")
    if args.num_workers < 0:
        raise ValueError(f"--num-workers is {args.num_workers}, but must be 0 or more.")


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
