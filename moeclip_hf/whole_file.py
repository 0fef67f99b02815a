"""Files that are written whole or not at all."""

import os
from pathlib import Path


def check_writable(path: str | os.PathLike) -> None:
    """Tries, before long work, whether `write_text` will be able to write a file; its folders are made.

    Args:
        path (`str` or `os.PathLike`): The file.

    Raises:
        OSError: If the file cannot be written.
    """
    unfinished = _unfinished(Path(path))
    unfinished.touch()
    unfinished.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file; a reader finds the old one or the new one, never half of one.

    Args:
        path (`str` or `os.PathLike`): The file; missing folders are made.
        text (`str`): Its content.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(path)
    unfinished = _unfinished(path)
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """Where the text stands until it is whole: beside the file, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}")
