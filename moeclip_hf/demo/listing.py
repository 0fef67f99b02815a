"""The list of all that the demo trains on, so that the other commands can train on it too."""

import json
import os
from pathlib import Path

import datasets

from ..whole_file import write_text


def write_training_list(dataset: datasets.Dataset, folder: Path) -> Path:
    """Writes `train.jsonl` into the folder that holds the pictures.

    Args:
        dataset (`datasets.Dataset`): From [`~data.load_anomaly_dataset`].
        folder (`Path`): A folder above all its pictures; the list's paths are relative to it.

    Returns:
        `Path`: the list.

    Raises:
        OSError: If it cannot be written.
    """
    undecoded = datasets.Image(decode=False)
    lines = []
    for row in dataset.cast_column("image", undecoded).cast_column("mask", undecoded):
        entry = {name: row[name] for name in ("label", "class_name", "object_name")}
        entry["image_path"] = os.path.relpath(row["image"]["path"], folder)
        if row["mask"] is not None:
            entry["mask_path"] = os.path.relpath(row["mask"]["path"], folder)
        lines.append(json.dumps(entry, sort_keys=True) + "\n")
    write_text(folder / "train.jsonl", "".join(lines))
    return folder / "train.jsonl"
