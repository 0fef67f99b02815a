"""Small data sets on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_picture(path: Path, height=10, width=12, value=None, mode="RGB") -> Path:
    """A picture of one grey, told by its path where no value is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = sum(map(ord, path.stem)) % 256 if value is None else value
    Image.fromarray(np.full((height, width), grey, dtype=np.uint8)).convert(mode).save(path)
    return path


def write_mask(path: Path, height=10, width=12, marked=True) -> Path:
    """A mask whose left upper quarter is marked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: height // 2, : width // 2] = 255 * marked
    Image.fromarray(mask).save(path)
    return path


def write_class(folder: Path, num_normal=2, num_anomalous=2, with_masks=True) -> Path:
    """A class in MVTec layout with one kind of defect."""
    for number in range(num_normal):
        write_picture(folder / "test" / "good" / f"{number:03}.png")
    for number in range(num_anomalous):
        write_picture(folder / "test" / "dent" / f"{number:03}.png")
        if with_masks:
            write_mask(folder / "ground_truth" / "dent" / f"{number:03}_mask.png")
    return folder


def write_list(path: Path, entries: list[dict]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


@pytest.fixture
def mvtec(tmp_path) -> Path:
    """Two classes in MVTec layout."""
    write_class(tmp_path / "mvtec" / "metal_nut")
    write_class(tmp_path / "mvtec" / "bottle", num_normal=1, num_anomalous=3)
    return tmp_path / "mvtec"
