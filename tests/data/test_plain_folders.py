"""Plain folders: `good` and others for the kinds of defects, with or without a folder for each class."""

import logging

import pytest

from moeclip_hf.data import load_anomaly_dataset

from .conftest import write_list, write_mask, write_picture
from .test_folders import names


def write_plain(folder, with_good=True):
    write_picture(folder / "scratch" / "0.png")
    write_picture(folder / "scratch" / "1.png")
    if with_good:
        write_picture(folder / "good" / "0.png")
    return folder


def test_one_class_is_named_by_its_folder(tmp_path):
    dataset = load_anomaly_dataset(write_plain(tmp_path / "bottle_cap"))
    assert names(dataset) == [("good/0.png", None, 0), ("scratch/0.png", None, 1), ("scratch/1.png", None, 1)]
    assert set(dataset["class_name"]) == {"bottle_cap"}
    assert set(dataset["object_name"]) == {"bottle cap"}


def test_folders_of_classes(tmp_path):
    for name in ("cap", "lid"):
        write_plain(tmp_path / "parts" / name)
    write_picture(tmp_path / "parts" / "lid" / "dent" / "0.png")
    dataset = load_anomaly_dataset(tmp_path / "parts")
    assert list(dataset["class_name"]) == ["cap"] * 3 + ["lid"] * 4
    assert list(dataset["label"]) == [0, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("level", ["", "cap"])
@pytest.mark.parametrize(
    "mask",
    ["ground_truth/scratch/1_mask.png", "ground_truth/scratch/1.bmp", "masks/scratch/1.png", "masks/1.png", "masks/1_mask.png"],
)  # fmt: skip
def test_places_of_masks(tmp_path, level, mask):
    folder = write_plain(tmp_path / "parts" / level)
    write_mask(folder / mask)
    dataset = load_anomaly_dataset(tmp_path / "parts")
    expected = "/".join(mask.split("/")[-2:])
    assert names(dataset) == [("good/0.png", None, 0), ("scratch/0.png", None, 1), ("scratch/1.png", expected, 1)]


def test_masks_in_one_folder_are_those_of_defects(tmp_path):
    """A normal picture may have the name of an anomalous one."""
    folder = write_plain(tmp_path / "cap")
    write_mask(folder / "masks" / "0.png")
    assert names(load_anomaly_dataset(folder))[:2] == [("good/0.png", None, 0), ("scratch/0.png", "masks/0.png", 1)]


def test_mask_that_fits_pictures_of_two_defects_is_an_error(tmp_path):
    folder = write_plain(tmp_path / "cap")
    write_picture(folder / "dent" / "0.png")
    write_mask(folder / "masks" / "0.png")
    with pytest.raises(ValueError, match=r"masks/0.png: fits .*dent/0.png and .*scratch/0.png: rename one"):
        load_anomaly_dataset(folder)


def test_without_normal_pictures_every_one_is_anomalous_and_it_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load_anomaly_dataset(write_plain(tmp_path / "cap", with_good=False))
    assert list(dataset["label"]) == [1, 1]
    assert "no folder is named good, ok or normal: every picture counts as anomalous" in caplog.text


def test_without_anomalous_pictures(tmp_path):
    write_picture(tmp_path / "cap" / "good" / "0.png")
    assert list(load_anomaly_dataset(tmp_path / "cap")["label"]) == [0]


def test_object_name_in_place_of_the_folders(tmp_path):
    dataset = load_anomaly_dataset(write_plain(tmp_path / "cap"), object_name="blue bottle cap")
    assert set(dataset["class_name"]) == {"cap"}
    assert set(dataset["object_name"]) == {"blue bottle cap"}


def test_a_class_may_be_called_like_a_folder_of_masks(tmp_path):
    """Face masks, in MVTec layout."""
    write_picture(tmp_path / "it" / "masks" / "test" / "good" / "0.png")
    assert set(load_anomaly_dataset(tmp_path / "it")["class_name"]) == {"masks"}


def test_list_comes_before_plain_folders(tmp_path):
    folder = write_plain(tmp_path / "cap")
    write_list(folder / "list.jsonl", [{"image_path": "scratch/0.png", "label": 1}])
    assert len(load_anomaly_dataset(folder)) == 1


def test_pictures_without_a_folder_are_an_error(tmp_path):
    write_picture(tmp_path / "loose" / "0.png")
    with pytest.raises(ValueError, match=r"loose/0.png: a picture outside of the defects' folders: move normal ones"):
        load_anomaly_dataset(tmp_path / "loose")


def test_pictures_at_two_depths_are_an_error(tmp_path):
    folder = write_plain(tmp_path / "cap")
    write_picture(folder / "lid" / "good" / "0.png")
    with pytest.raises(ValueError, match="pictures lie in 'good' and also deeper, in folders of 'lid': sort them"):
        load_anomaly_dataset(folder)


def test_link_out_of_the_root_is_an_error(tmp_path):
    folder = write_plain(tmp_path / "cap")
    (folder / "scratch" / "9.png").symlink_to(write_picture(tmp_path / "elsewhere.png"))
    with pytest.raises(ValueError, match="'scratch/9.png' leads out of the root folder"):
        load_anomaly_dataset(folder)


def test_split_and_root_do_not_belong_here(tmp_path):
    folder = write_plain(tmp_path / "cap")
    with pytest.raises(ValueError, match="`split` 'train' belongs to folders in MVTec layout"):
        load_anomaly_dataset(folder, split="train")
    with pytest.raises(ValueError, match="`root` belongs to lists"):
        load_anomaly_dataset(folder, root=tmp_path)


def test_unreadable_pictures_are_left_out_if_asked(tmp_path, caplog):
    folder = write_plain(tmp_path / "cap")
    (folder / "scratch" / "0.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="scratch/0.png: not a picture that Pillow can read"):
        load_anomaly_dataset(folder)
    with caplog.at_level(logging.WARNING):
        assert len(load_anomaly_dataset(folder, strict=False)) == 2
    assert "1 of 3 pictures cannot be read and are left out" in caplog.text
    assert "scratch/0.png: not a picture" in caplog.text
