"""What is found out about a data set before any work is done on it."""

import logging

import numpy as np
import pytest
from PIL import Image, ImageOps

from moeclip_hf.data import load_anomaly_dataset

from .conftest import write_mask, write_picture


ORIENTATION = 0x0112


def test_mask_of_another_size_names_file_and_sizes(mvtec):
    write_mask(mvtec / "bottle" / "ground_truth" / "dent" / "001_mask.png", height=9, width=12)
    with pytest.raises(
        ValueError, match=r"001_mask.png: a mask of 9 x 12 pixels .* does not fit its image of 10 x 12"
    ):
        load_anomaly_dataset(mvtec)


@pytest.mark.parametrize("path", ["test/good/000.png", "test/dent/000.png", "ground_truth/dent/000_mask.png"])
@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_file_that_is_no_picture_is_named(mvtec, path, content):
    (mvtec / "bottle" / path).write_bytes(content)
    with pytest.raises(ValueError, match=f"bottle/{path}: not a picture that Pillow can read; replace") as error:
        load_anomaly_dataset(mvtec)
    assert "\n" not in str(error.value)


def test_picture_of_too_many_pixels_is_named(mvtec, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ValueError, match=r"bottle/test/dent/000.png: Image size \(120 pixels\) exceeds limit"):
        load_anomaly_dataset(mvtec)


def test_mask_cut_short_is_named(mvtec):
    mask = mvtec / "bottle" / "ground_truth" / "dent" / "000_mask.png"
    Image.effect_noise((120, 100), 50).save(mvtec / "bottle" / "test" / "dent" / "000.png")
    Image.effect_noise((120, 100), 50).save(mask)
    mask.write_bytes(mask.read_bytes()[:3000])
    with pytest.raises(ValueError, match="000_mask.png: .*truncated"):
        load_anomaly_dataset(mvtec)


def test_counts_are_said(mvtec, caplog):
    write_mask(mvtec / "bottle" / "ground_truth" / "dent" / "002_mask.png", marked=False)
    (mvtec / "metal_nut" / "ground_truth" / "dent" / "000_mask.png").unlink()
    write_mask(mvtec / "metal_nut" / "ground_truth" / "good" / "001_mask.png")
    write_mask(mvtec / "metal_nut" / "ground_truth" / "good" / "000_mask.png", marked=False)
    with caplog.at_level(logging.INFO):
        load_anomaly_dataset(mvtec)
    assert "8 pictures of 2 classes, 3 normal and 5 anomalous" in caplog.text
    assert "1 of 5 anomalous pictures have no mask and count on image level only" in caplog.text
    assert "metal_nut/test/dent/000.png" in caplog.text
    assert "1 of 5 anomalous pictures have an empty mask, which is kept as it is" in caplog.text
    assert "bottle/test/dent/002.png" in caplog.text
    assert "the masks of 1 normal pictures mark pixels, which are taken as normal" in caplog.text


def test_a_sound_data_set_warns_of_nothing(mvtec, caplog):
    with caplog.at_level(logging.WARNING):
        load_anomaly_dataset(mvtec)
    assert caplog.text == ""


def test_label_has_names(mvtec):
    assert load_anomaly_dataset(mvtec).features["label"].names == ["normal", "anomalous"]


# Orientations below 5 keep the size, so that a mask drawn upright cannot be told from one of the stored pixels.
@pytest.mark.parametrize(
    ("orientation", "is_drawn_upright"),
    [(orientation, False) for orientation in range(2, 9)] + [(orientation, True) for orientation in range(5, 9)],
)
def test_masks_of_turned_pictures_are_handed_out_upright(tmp_path, orientation, is_drawn_upright):
    image, mask = tmp_path / "nut" / "test" / "dent" / "0.png", tmp_path / "nut" / "ground_truth" / "dent" / "0.png"
    stored = write_picture(image, height=10, width=12)
    marked = np.zeros((10, 12), dtype=np.uint8)
    marked[1, 2:7] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.open(stored).save(image, exif=exif)
    mask.parent.mkdir(parents=True)
    turned = Image.fromarray(marked)
    turned.getexif()[ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(turned))
    Image.fromarray(upright if is_drawn_upright else marked).save(mask)
    row = load_anomaly_dataset(tmp_path)[0]
    assert row["image"].size == row["mask"].size
    assert np.array_equal(np.asarray(row["mask"]), upright)
