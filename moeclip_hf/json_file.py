"""JSON files that are written whole or not at all."""

import json
import os
from pathlib import Path

from .whole_file import write_text


def write_json(path: str | os.PathLike, value) -> None:
    """Writes a value as indented JSON; a reader finds the old file or the new one, never half of one.

    Args:
        path (`str` or `os.PathLike`): The file; missing folders are made.
        value: What `json` can write; nan and infinity are refused.

    Raises:
        ValueError: If the value holds nan or infinity.
        OSError: If the file cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_object(path: str | os.PathLike) -> dict:
    """Reads a JSON file that holds one object.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        `dict`: The object.

    Raises:
        ValueError: If the file is no JSON, or holds something else.
        OSError: If it cannot be read.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): mend or replace it.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, {{...}}, but holds {type(value).__name__}.")
    return value
