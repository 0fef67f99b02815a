"""The console command `moeclip`: finds the module of the asked command, runs it, and turns user errors into one line."""

import argparse
import contextlib
import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """What the frame must know of a command before its module is imported.

    Attributes:
        summary (`str`): The command's line in `moeclip --help`.
        extra (`str` or `None`): The optional dependencies it needs, a name of setup.cfg's extras; `None` for none.
    """

    summary: str
    extra: str | None


# Command `x` lives in `moeclip_hf/cli/x.py`, which offers `add_parser(subparsers)` and `run(args)`.
COMMANDS = {
    "demo": Command("train and test on the built-in benchmark: no download, a few minutes on a CPU", "demo"),
    "train": Command("train MoECLIP on a pretrained CLIP and your own images", "train"),
    "evaluate": Command("measure a trained model on images with known labels and masks", "eval"),
    "benchmark": Command("measure a trained model on the paper's 14 benchmarks", "eval"),
    "report": Command("lay the benchmarks' results beside the paper's figures", "eval"),
    "ablate": Command("train several recipes with several seeds and compare them", "train"),
    "data": Command("check that a benchmark or your own data are whole and readable", "eval"),
    "convert": Command("turn a checkpoint of the authors' code into a model of this package", None),
    "push": Command("send a trained model to the Hub, with a model card", "eval"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the console command.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments without the program's name; `sys.argv[1:]` by default.

    Returns:
        `int`: The exit code: 0 done, 1 failed (one line on stderr says why), 130 interrupted.

    Raises:
        SystemExit: With code 2 for a wrong usage and code 0 after `--help` and `--version`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    quiet_libraries()
    name = argv[0] if argv else None
    args = argparse.Namespace()
    try:
        build_parser(name).parse_args(argv, args)
        with log_to_stderr():
            return args.run(args) or 0
    except KeyboardInterrupt:
        sys.stderr.write("\nmoeclip: interrupted\n")
        return 130
    except user_errors() as error:
        sys.stderr.write(f"moeclip: error: {describe_error(error, name, args)}\n")
        return 1


def build_parser(name: str | None = None) -> argparse.ArgumentParser:
    """Builds the parser; only the module of the command `name` is imported, so that `moeclip --help` stays fast.

    Args:
        name (`str`, *optional*): The command whose own arguments are wanted; the others are only listed.

    Returns:
        `argparse.ArgumentParser`: The parser of the whole command line.
    """
    from ..version import __version__

    parser = argparse.ArgumentParser(
        prog="moeclip",
        description="MoECLIP: finds defects on objects it has never seen, given an image and the object's name.",
        epilog="`moeclip COMMAND --help` tells each command's arguments. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"moeclip {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command, about in COMMANDS.items():
        if command == name:
            importlib.import_module(f"{__name__}.{command}").add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=about.summary)
    return parser


def quiet_libraries() -> None:
    """Asks the libraries below for errors only; what the user set in the environment counts more.

    It only sets variables that they read when they are imported, since importing them here would be slow.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def user_errors() -> tuple[type[BaseException], ...]:
    """Lists the exceptions that speak of the user's input or files rather than of a mistake in the code.

    Returns:
        `tuple[type[BaseException], ...]`: Python's own, and those of libraries that have been imported by now.
    """
    errors: list[type[BaseException]] = [ValueError, OSError, ImportError]
    # None of these is a ValueError or an OSError, though they mean a damaged or hand-edited file, or a broken connection.
    for module, name in (
        ("safetensors", "SafetensorError"),
        ("huggingface_hub.errors", "StrictDataclassError"),
        ("huggingface_hub.errors", "HTTPError"),
    ):
        if module in sys.modules:
            errors.append(getattr(sys.modules[module], name))
    return tuple(errors)


def describe_error(error: BaseException, name: str | None, args: argparse.Namespace) -> str:
    """Says in one line what went wrong.

    Args:
        error (`BaseException`): One of `user_errors()`.
        name (`str` or `None`): The command that raised it, to name the extra that a missing package belongs to.
        args (`argparse.Namespace`): Its arguments, to name the one that a library could not load.

    Returns:
        `str`: One line, without the exception's class unless it has no message.
    """
    from ..hub_errors import describe_hub_error

    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("moeclip_hf"):
        package = error.name.partition(".")[0]
        extra = COMMANDS[name].extra if name in COMMANDS else None
        requirement = f"moeclip_hf[{extra}]" if extra else "moeclip_hf"
        return f"the package `{package}` is not installed: pip install '{requirement}'"
    if isinstance(error, OSError) and error.strerror and error.filename is not None and error.errno in errno.errorcode:
        return f"{error.filename}: {error.strerror}"
    sentence = first_sentence(str(error)) or type(error).__name__
    package = raising_package(error)
    answer = describe_hub_error(error)
    if answer or package == "huggingface_hub" or (package == "transformers" and isinstance(error, OSError)):
        for option in ("model", "clip", "tokenizer"):
            source = getattr(args, option, None)
            if source is not None and not os.path.isdir(source):
                reason = answer or sentence.partition(". ")[0]
                return f"`--{option}` {source} is no folder on this machine and cannot be had from the Hub: {reason}"
    return sentence


def raising_package(error: BaseException) -> str:
    """Finds the package whose code raised an exception.

    Args:
        error (`BaseException`): A caught exception.

    Returns:
        `str`: The package's name, e.g. `"transformers"`; empty if the exception was never raised.
    """
    module = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0]


def first_sentence(message: str) -> str:
    """Cuts a message of several lines to one.

    Args:
        message (`str`): Any text.

    Returns:
        `str`: Its first line that is not empty, with those that follow as long as a line ends in a colon.
    """
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    kept = lines[:1]
    for line in lines[1:]:
        if not kept[-1].endswith(":"):
            break
        kept.append(line)
    return " ".join(kept)


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Shows the package's own log messages, from INFO on, as plain lines on stderr while a command runs."""
    logger = logging.getLogger("moeclip_hf")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
