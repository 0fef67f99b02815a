"""Data sets of the package `datasets`, from the Hub or from disk, by the names of their columns."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..prompts_moeclip import GENERIC_OBJECT_NAME
from .folders import NORMAL_FOLDERS
from .lists import LABELS
from .records import default_object_name


try:
    import datasets
    from datasets.exceptions import DatasetsError
except ImportError as error:
    raise ImportError("reading data sets needs the package `datasets`: pip install 'moeclip_hf[train]'.") from error


LABEL_NAMES = ("normal", "anomalous")
# The columns of every data set that training and evaluation read.
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "mask": datasets.Image(),
        "label": datasets.ClassLabel(names=list(LABEL_NAMES)),
        "class_name": datasets.Value("string"),
        "object_name": datasets.Value("string"),
    }
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SAVED = ("dataset_info.json", "dataset_dict.json")  # what `save_to_disk` writes, of one split and of several


def is_table(data: Path) -> bool:
    """Tells whether `--data` is to be read by the package `datasets`.

    Args:
        data (`Path`): A path, or the id of a data set on the Hub.

    Returns:
        `bool`: True for a folder that `save_to_disk` wrote, a Parquet file, a folder with such files, one with a
        `metadata` file for its pictures, and for a path that does not exist but has the form of an id, `user/name`.
    """
    if not data.exists():
        return not data.is_absolute() and HUB_ID.fullmatch(data.as_posix()) is not None
    if data.is_file():
        return data.suffix == ".parquet"
    has_parquet = any(data.glob("*.parquet")) or any(data.glob("*/*.parquet"))
    return has_parquet or any((data / name).is_file() for name in _SAVED) or _has_picture_metadata(data)


def read_table(
    data: Path, split: str | None, columns: dict[str, str] | None, object_name: str | None = None
) -> datasets.Dataset:
    """Reads a data set of the package `datasets` and gives its columns the names that they have here.

    Args:
        data (`Path`):
            A path, or the id of a data set on the Hub; the package keeps its cache under `HF_HOME`.
        split (`str`, *optional*):
            Which of its splits; may be left out if it has one.
        columns (`dict[str, str]`, *optional*):
            What it calls `image`, `mask`, `label`, `class_name` and `object_name`, where it does not call them so. Only
            `image` and `label` must be there.
        object_name (`str`, *optional*):
            The object's name for every row; also the class's, where there is no column for it.

    Returns:
        `datasets.Dataset`: with the columns of `FEATURES`.

    Raises:
        FileNotFoundError: If there is no such data set.
        ValueError: If it has several splits and none was named, a column is missing or of another kind, or a label is
            neither 0 nor 1 nor a name among which one says that there is no defect.
    """
    table = _choose_split(_open(data), split, data)
    names = _find_columns(table, columns or {}, data)
    pictures = table.select_columns([names["image"]]).rename_columns({names["image"]: "image"})
    class_names = _read_names(table, names["class_name"]) or [object_name or ""] * len(table)
    object_names = None if object_name else _read_names(table, names["object_name"])
    object_names = object_names or [object_name or ""] * len(table)
    texts = {
        "label": _read_labels(table, names["label"], data),
        "class_name": [name or GENERIC_OBJECT_NAME for name in class_names],
        "object_name": [
            name or default_object_name(class_name) for name, class_name in zip(object_names, class_names, strict=True)
        ],
    }
    if names["mask"] is None:
        texts["mask"] = [None] * len(table)
        parts = [pictures]
    else:
        parts = [pictures, table.select_columns([names["mask"]]).rename_columns({names["mask"]: "mask"})]
    features = datasets.Features({name: FEATURES[name] for name in texts})
    parts.append(datasets.Dataset.from_dict(texts, features=features))
    return datasets.concatenate_datasets(parts, axis=1).select_columns(list(FEATURES))


def _open(data: Path) -> datasets.Dataset | datasets.DatasetDict:
    try:
        if any((data / name).is_file() for name in _SAVED):
            return datasets.load_from_disk(data)
        if data.is_file():
            return datasets.load_dataset("parquet", data_files=str(data))
        return datasets.load_dataset(str(data))
    except (OSError, ValueError, LookupError, DatasetsError) as error:
        kind = "cannot be read" if data.exists() else "is no file or folder here and cannot be had from the Hub"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(f"`data` {str(data)!r} {kind}: {reason}") from error


def _choose_split(loaded, split: str | None, data: Path) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        if split is not None and split != str(loaded.split):
            raise ValueError(f"`split` {split!r}: {str(data)!r} is a single split, {loaded.split}: leave it out.")
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise ValueError(f"`split` ({split}) must be one that {str(data)!r} has: {', '.join(loaded)}.")
    return loaded[split]


def _find_columns(table: datasets.Dataset, columns: dict[str, str], data: Path) -> dict[str, str | None]:
    """What the table calls each of our columns, None for those that it lacks and that are not needed."""
    names = {}
    for column in FEATURES:
        name = columns.get(column, column)
        if name in table.column_names:
            names[column] = name
        elif column in columns or column in ("image", "label"):
            raise ValueError(
                f"`data` {str(data)!r} has no column {name!r} for the {column}: name one of {table.column_names}."
            )
        else:
            names[column] = None
    for column in ("image", "mask"):
        feature = table.features.get(names[column])
        if feature is not None and not isinstance(feature, datasets.Image):
            raise ValueError(
                f"`data` {str(data)!r}: column {names[column]!r} holds no pictures for the {column} but"
                f" {_describe(feature)}: name another, or store it as `datasets.Image`."
            )
    return names


def _read_names(table: datasets.Dataset, column: str | None) -> list[str] | None:
    """The texts of a column, empty where there is none; names for numbers where the column has names for them."""
    if column is None:
        return None
    values, feature = list(table[column]), table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        values = [None if value is None or value < 0 else feature.int2str(value) for value in values]
    return ["" if value is None else str(value).strip() for value in values]


def _read_labels(table: datasets.Dataset, column: str, data: Path) -> list[int]:
    """0 or 1 for each row, from numbers, or from names of which one says that there is no defect."""
    values = _read_names(table, column)
    unlabelled = next((row for row, value in enumerate(values) if not value), None)
    if unlabelled is not None:
        raise ValueError(f"`data` {str(data)!r}: row {unlabelled} has no label in column {column!r}: take it out.")
    feature = table.features[column]
    kinds = list(feature.names) if isinstance(feature, datasets.ClassLabel) else list(dict.fromkeys(values))
    numbers = LABELS | {"False": 0, "True": 1}
    if all(kind in numbers for kind in kinds):
        return [numbers[value] for value in values]
    if any(kind.lower() in NORMAL_FOLDERS for kind in kinds):
        return [0 if value.lower() in NORMAL_FOLDERS else 1 for value in values]
    raise ValueError(
        f"`data` {str(data)!r}: column {column!r} has the labels {_list_some(kinds)}: they must be 0 and 1, or names of"
        f" which one is {', '.join(NORMAL_FOLDERS[:-1])} or {NORMAL_FOLDERS[-1]}."
    )


def _list_some(kinds: Sequence[str]) -> str:
    return ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "")


def _describe(feature) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _has_picture_metadata(folder: Path) -> bool:
    """Whether a folder has the file by which `datasets` knows more of pictures than their folders' names."""
    for name in ("metadata.csv", "metadata.jsonl"):
        if (folder / name).is_file():
            with (folder / name).open(encoding="utf-8-sig") as stream:
                first = stream.readline()
            names = first.strip().split(",") if name.endswith(".csv") else _keys(first)
            if "file_name" in names:
                return True
    return False


def _keys(line: str) -> list[str]:
    try:
        return list(json.loads(line))
    except (json.JSONDecodeError, TypeError):
        return []
