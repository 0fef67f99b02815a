"""Lists of pictures, JSON lines or CSV: {"image_path", "label", "class_name", "mask_path", "object_name"}.

Paths are relative to a root folder. `mask_path` and `object_name` may be missing, and so may `class_name`.
"""

import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from ..prompts_moeclip import GENERIC_OBJECT_NAME
from .folders import Scan
from .records import AnomalyRecord, default_object_name, resolve_inside


logger = logging.getLogger(__name__)

KEYS = ("image_path", "label", "class_name", "mask_path", "object_name")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}  # as tables write them


def read_list(list_file: Path, root: Path, *, strict: bool = True) -> Scan:
    """Reads a list of pictures.

    Args:
        list_file (`Path`):
            A CSV file with a line of column names if it is named `*.csv`, else a JSON object a line. Empty lines are
            skipped.
        root (`Path`):
            The folder to which its paths are relative, and which they may not leave.
        strict (`bool`, *optional*, defaults to True):
            Whether a file that does not exist is an error. If not, its line is left out.

    Returns:
        `Scan`: the pictures in the list's order, and for each line that was left out what is missing.

    Raises:
        ValueError: If a line is malformed, a path leads out of `root` or a picture is listed twice; the message names
            the line.
        FileNotFoundError: If `strict` and a file of the list does not exist.
    """
    read_entries = _read_csv if list_file.suffix.lower() == ".csv" else _read_json_lines
    records, missing, unknown_keys = [], [], set()
    line_of_picture: dict[Path, int] = {}
    try:
        for number, entry in read_entries(list_file):
            where = f"{list_file}, line {number}"
            unknown_keys.update(set(entry) - set(KEYS))
            try:
                record = _make_record(entry, root, where)
            except FileNotFoundError as error:
                if strict:
                    raise
                missing.append(str(error))
                continue
            first = line_of_picture.setdefault(record.image_path.resolve(), number)
            if first != number:
                raise ValueError(f"{where}: {entry['image_path']!r} is listed in line {first} already: keep one.")
            records.append(record)
    except UnicodeDecodeError:
        raise ValueError(f"{list_file}: not a list in UTF-8, JSON lines or CSV.") from None
    if unknown_keys:
        logger.warning("%s: keys %s are not read, only %s.", list_file, sorted(unknown_keys), list(KEYS))
    return Scan(records, missing=missing)


def _read_json_lines(list_file: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(list_file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield number, _parse_line(line, f"{list_file}, line {number}")


def _parse_line(line: str, where: str) -> dict:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}): write one JSON object a line.") from None
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: not a JSON object: write {{"image_path": ..., "label": 0 or 1, ...}}.')
    return entry


def _read_csv(list_file: Path) -> Iterator[tuple[int, dict]]:
    with list_file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            _check_header(reader.fieldnames or [], list_file)
            for row in reader:
                yield reader.line_num, _parse_row(row, f"{list_file}, line {reader.line_num}")
        except csv.Error as error:
            raise ValueError(f"{list_file}, line {reader.reader.line_num}: not CSV ({error}).") from None


def _check_header(names: list[str], list_file: Path) -> None:
    absent = [name for name in ("image_path", "label") if name not in names]
    if absent:
        raise ValueError(
            f"{list_file}, line 1: no column {' and '.join(absent)}: name the columns there, {','.join(KEYS)}, with"
            " commas between them."
        )


def _parse_row(row: dict, where: str) -> dict:
    if None in row or None in row.values():
        raise ValueError(f"{where}: not as many values as columns: put a text with a comma in it in quotes.")
    return row | {"label": LABELS.get(row["label"].strip(), row["label"])}


def _make_record(entry: dict, root: Path, where: str) -> AnomalyRecord:
    image_path, mask_path = _text(entry, "image_path", where), _text(entry, "mask_path", where)
    class_name, object_name = _text(entry, "class_name", where), _text(entry, "object_name", where)
    if not image_path:
        raise ValueError(f"{where}: `image_path` is missing.")
    if "label" not in entry:
        raise ValueError(f"{where}: `label` is missing: write 0 (normal) or 1 (anomalous).")
    if not isinstance(entry["label"], (int, float)) or entry["label"] not in (0, 1):
        raise ValueError(f"{where}: `label` must be 0 (normal) or 1 (anomalous), got {entry['label']!r}.")
    return AnomalyRecord(
        image_path=resolve_inside(root, image_path, where),
        label=int(entry["label"]),
        class_name=class_name or GENERIC_OBJECT_NAME,
        object_name=object_name or default_object_name(class_name),
        mask_path=resolve_inside(root, mask_path, where) if mask_path else None,
    )


def _text(entry: dict, key: str, where: str) -> str:
    """A text field without blanks around it, empty where it is missing or null."""
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}: `{key}` must be a text, got {value!r}.")
    return value.strip()
