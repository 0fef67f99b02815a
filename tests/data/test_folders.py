"""Folders in MVTec layout, as they are found in the wild."""

import logging
import re

import pytest

from moeclip_hf.data import load_anomaly_dataset

from .conftest import write_class, write_mask, write_picture


def names(dataset) -> list[tuple]:
    """Which picture has which mask, by their last folders."""
    from datasets import Image

    rows = dataset.cast_column("image", Image(decode=False)).cast_column("mask", Image(decode=False))

    def short(cell):
        return None if cell is None else "/".join(cell["path"].split("/")[-2:])

    return [(short(row["image"]), short(row["mask"]), row["label"]) for row in rows]


def test_many_classes(mvtec):
    dataset = load_anomaly_dataset(mvtec)
    assert dataset.column_names == ["image", "mask", "label", "class_name", "object_name"]
    assert list(dataset["class_name"]) == ["bottle"] * 4 + ["metal_nut"] * 4
    assert list(dataset["object_name"]) == ["bottle"] * 4 + ["metal nut"] * 4
    assert names(dataset)[4:] == [
        ("dent/000.png", "dent/000_mask.png", 1),
        ("dent/001.png", "dent/001_mask.png", 1),
        ("good/000.png", None, 0),
        ("good/001.png", None, 0),
    ]


def test_pictures_and_masks_decode(mvtec):
    row = load_anomaly_dataset(str(mvtec))[0]
    assert row["image"].size == row["mask"].size == (12, 10)
    assert row["mask"].getpixel((0, 0)) == 255
    assert row["mask"].getpixel((11, 9)) == 0


def test_one_class_is_named_by_its_folder(mvtec, monkeypatch):
    assert set(load_anomaly_dataset(mvtec / "metal_nut")["class_name"]) == {"metal_nut"}
    monkeypatch.chdir(mvtec / "metal_nut")
    dataset = load_anomaly_dataset(".")
    assert set(dataset["object_name"]) == {"metal nut"}


def test_paths_survive_a_change_of_folder(mvtec, monkeypatch, tmp_path):
    monkeypatch.chdir(mvtec.parent)
    dataset = load_anomaly_dataset("mvtec")
    monkeypatch.chdir("/")
    assert dataset[0]["image"].size == (12, 10)


def test_test_folder_is_read_and_train_may_be_missing(mvtec):
    write_picture(mvtec / "bottle" / "train" / "good" / "900.png")
    assert len(load_anomaly_dataset(mvtec)) == 8
    train = load_anomaly_dataset(mvtec, split="train")
    assert names(train) == [("good/900.png", None, 0)]


def test_train_split_takes_no_masks_of_the_test_split(mvtec):
    write_picture(mvtec / "bottle" / "train" / "dent" / "000.png")
    assert names(load_anomaly_dataset(mvtec, split="train")) == [("dent/000.png", None, 1)]


@pytest.mark.parametrize("mask_name", ["7.png", "7_mask.bmp", "7.jpg", "7_mask.PNG"])
def test_masks_with_and_without_suffix(tmp_path, mask_name):
    write_picture(tmp_path / "nut" / "test" / "dent" / "7.jpg")
    write_mask(tmp_path / "nut" / "ground_truth" / "dent" / mask_name)
    assert names(load_anomaly_dataset(tmp_path)) == [("dent/7.jpg", f"dent/{mask_name}", 1)]


def test_mask_with_the_ending_comes_before_one_without(tmp_path):
    write_picture(tmp_path / "nut" / "test" / "dent" / "7.png")
    write_mask(tmp_path / "nut" / "ground_truth" / "dent" / "7.png")
    write_mask(tmp_path / "nut" / "ground_truth" / "dent" / "7_mask.png")
    assert names(load_anomaly_dataset(tmp_path))[0][1] == "dent/7_mask.png"


def test_several_masks_of_one_picture_are_an_error(tmp_path):
    write_picture(tmp_path / "nut" / "test" / "dent" / "7.png")
    for name in ("7_mask.png", "7_mask.bmp"):
        write_mask(tmp_path / "nut" / "ground_truth" / "dent" / name)
    with pytest.raises(ValueError, match=r"7.png: several masks fit \(7_mask.bmp, 7_mask.png\)"):
        load_anomaly_dataset(tmp_path)


@pytest.mark.parametrize("name", ["good", "Good", "ok", "normal"])
def test_names_of_normal_folders(tmp_path, name):
    write_picture(tmp_path / "nut" / "test" / name / "0.png")
    assert list(load_anomaly_dataset(tmp_path)["label"]) == [0]


def test_other_files_are_passed_over(mvtec):
    (mvtec / "license.txt").write_text("free")
    (mvtec / "bottle" / "test" / "good" / "notes.txt").write_text("none")
    (mvtec / "bottle" / "test" / "good" / "._000.png").write_text("macOS")
    (mvtec / ".cache" / "test").mkdir(parents=True)
    (mvtec / "evaluation_code").mkdir()
    assert len(load_anomaly_dataset(mvtec)) == 8


def test_masks_that_fit_no_picture_are_said(mvtec, caplog):
    write_mask(mvtec / "bottle" / "ground_truth" / "dent" / "000_gt.png")
    with caplog.at_level(logging.WARNING):
        load_anomaly_dataset(mvtec)
    assert "1 masks fit no picture by their names (first: " in caplog.text


def test_picture_outside_of_the_defects_folders_is_an_error(mvtec):
    write_picture(mvtec / "bottle" / "test" / "lost.png")
    with pytest.raises(ValueError, match="lost.png: a picture outside of the defects' folders: move normal ones"):
        load_anomaly_dataset(mvtec)


def test_link_out_of_the_root_is_an_error(mvtec, tmp_path):
    outside = write_picture(tmp_path / "elsewhere" / "999.png")
    (mvtec / "bottle" / "test" / "good" / "999.png").symlink_to(outside)
    with pytest.raises(ValueError, match="'bottle/test/good/999.png' leads out of the root folder"):
        load_anomaly_dataset(mvtec)


def test_linked_class_out_of_the_root_is_an_error(mvtec, tmp_path):
    (mvtec / "cable").symlink_to(write_class(tmp_path / "cable"))
    with pytest.raises(ValueError, match="'cable/test/good/000.png' leads out of the root folder"):
        load_anomaly_dataset(mvtec)


def test_root_itself_may_be_a_link(mvtec, tmp_path):
    (tmp_path / "link").symlink_to(mvtec)
    assert len(load_anomaly_dataset(tmp_path / "link")) == 8
    (tmp_path / "class_link").symlink_to(mvtec / "metal_nut")
    assert set(load_anomaly_dataset(tmp_path / "class_link")["class_name"]) == {"metal_nut"}


def test_folders_without_pictures_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match="holds neither <class>/test/<defect>/ with pictures .*, nor good/ .*, nor a list"
    ):
        load_anomaly_dataset(tmp_path / "empty")
    (tmp_path / "hollow" / "nut" / "test" / "good").mkdir(parents=True)
    with pytest.raises(ValueError, match=re.escape("hollow") + ".*has no pictures"):
        load_anomaly_dataset(tmp_path / "hollow")
    with pytest.raises(ValueError, match="hollow' has a folder 'test' but none 'train' .* give `split` 'test'"):
        load_anomaly_dataset(tmp_path / "hollow", split="train")


@pytest.mark.parametrize("data", ["parts", "parts/nut"])
def test_train_folder_alone_is_no_class_called_train(tmp_path, data):
    """What is left of a class where `test` was not extracted."""
    write_picture(tmp_path / "parts" / "nut" / "train" / "good" / "000.png")
    with pytest.raises(ValueError, match="has a folder 'train' but none 'test' .*: add it, or give `split` 'train'"):
        load_anomaly_dataset(tmp_path / data)
    assert set(load_anomaly_dataset(tmp_path / data, split="train")["class_name"]) == {"nut"}


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="`data` '.*nowhere' does not exist: give a folder of pictures or a list"
    ):
        load_anomaly_dataset(tmp_path / "nowhere")


def test_unknown_split_is_an_error(mvtec):
    with pytest.raises(ValueError, match=r"`split` must be one of \['test', 'train'\], got 'valid'"):
        load_anomaly_dataset(mvtec, split="valid")


def test_root_belongs_to_lists(mvtec):
    with pytest.raises(ValueError, match="`root` belongs to lists"):
        load_anomaly_dataset(mvtec, root=mvtec)
