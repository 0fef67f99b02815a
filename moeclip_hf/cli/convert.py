"""`moeclip convert`: reads the authors' checkpoint and its CLIP from files and writes a model folder."""

import argparse
import logging
import pickle
from pathlib import Path


logger = logging.getLogger(__name__)

DESCRIPTION = """\
Turns a checkpoint of the MoECLIP authors' code, and the CLIP it was trained on, into a model folder of this package.
Number of experts, rank, sharing and activation are read off the tensors; the options below are not in the file, and
default to the release's values. PyTorch files are read as plain tensors (weights_only=True)."""


def add_parser(subparsers) -> None:
    """Adds the command's arguments.

    Args:
        subparsers (`argparse._SubParsersAction`): Where the console command collects its commands.
    """
    parser = subparsers.add_parser(
        "convert",
        help="turn a checkpoint of the authors' code into a model of this package",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--clip", required=True, metavar="FILE", help="CLIP weights under OpenAI's names: .safetensors or .pt"
    )
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="the authors' checkpoint: .pth")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write the model to")
    parser.add_argument(
        "--tokenizer",
        metavar="ID_OR_FOLDER",
        help="tokenizer of that CLIP, e.g. openai/clip-vit-large-patch14-336; with it the folder gets a processor too",
    )
    parser.add_argument("--image-size", type=int, default=518, metavar="PIXELS", help="input size (default: 518)")
    parser.add_argument(
        "--feature-layers",
        type=int,
        nargs="+",
        default=[5, 11, 17, 23],
        metavar="LAYER",
        help="encoder layers of the anomaly maps, counted from 0 (default: 5 11 17 23)",
    )
    parser.add_argument(
        "--layers-to-transform",
        type=int,
        nargs="+",
        default=[5, 11, 17, 23],
        metavar="LAYER",
        help="encoder layers with experts, counted from 0 (default: 5 11 17 23)",
    )
    parser.add_argument("--lora-alpha", type=float, default=16, help="scale of the experts (default: 16)")
    parser.add_argument(
        "--lora-dropout", type=float, default=0.05, help="dropout of the experts if trained further (default: 0.05)"
    )
    parser.add_argument("--num-experts-per-tok", type=int, default=2, help="experts per token (default: 2)")
    parser.add_argument(
        "--patch-average-kernel-sizes",
        type=int,
        nargs="+",
        default=[1, 3, 5],
        metavar="PATCHES",
        help="averaging windows (default: 1 3 5)",
    )
    parser.add_argument(
        "--hidden-act", default="gelu", help="activation of both towers; the release uses exact GELU (default: gelu)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Converts the files that the arguments name.

    Args:
        args (`argparse.Namespace`): The parsed arguments.

    Raises:
        ValueError: If a file is not what it should be or does not fit the options.
        FileNotFoundError: If a file does not exist.
    """
    from moeclip_hf import MoECLIPProcessor, convert_original

    model = convert_original(
        read_tensors(args.clip),
        read_tensors(args.checkpoint),
        image_size=args.image_size,
        feature_layers=tuple(args.feature_layers),
        layers_to_transform=tuple(args.layers_to_transform),
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        num_experts_per_tok=args.num_experts_per_tok,
        patch_average_kernel_sizes=tuple(args.patch_average_kernel_sizes),
        hidden_act=args.hidden_act,
    )
    processor = None if args.tokenizer is None else MoECLIPProcessor.from_clip(args.tokenizer, model.config)
    model.save_pretrained(args.output)
    if processor is None:
        logger.info("%s holds the model, without a processor: pass --tokenizer to add one.", args.output)
    else:
        processor.save_pretrained(args.output)
        logger.info("%s holds the model and its processor.", args.output)


def read_tensors(path: str) -> dict:
    """Reads a file of tensors without running code from it.

    Args:
        path (`str`): A .safetensors file, or a PyTorch file of tensors in dictionaries.

    Returns:
        `dict`: The file's content; a PyTorch file's `"state_dict"` if it has one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds anything but tensors in dictionaries.
    """
    import torch
    from safetensors.torch import load_file

    from moeclip_hf.backbone_moeclip import weights_errors

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    if path.endswith(".safetensors"):
        with weights_errors(path):
            return load_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is no plain file of tensors (a scripted archive, code, or damaged): save its state_dict as "
            f".safetensors and pass that."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors.")
    return content.get("state_dict", content)
