"""Data sets of the package `datasets`, by the names of their columns, from disk; the Hub is out of reach here."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from moeclip_hf.data import load_anomaly_dataset

from .conftest import write_class, write_mask, write_picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """`datasets` copies what it reads; not into the user's folder here."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def picture(value=100, height=10, width=12) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8))


def drawn_mask(height=10, width=12) -> Image.Image:
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: height // 2, : width // 2] = 255
    return Image.fromarray(mask)


def build(label_feature, labels, **more) -> datasets.Dataset:
    """A data set with foreign names for everything."""
    columns = {
        "photo": [picture(20 * row) for row in range(len(labels))],
        "segmentation": [None] + [drawn_mask()] * (len(labels) - 1),
        "state": labels,
        **{name: values for name, (_, values) in more.items()},
    }
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "segmentation": datasets.Image(),
            "state": label_feature,
            **{name: feature for name, (feature, _) in more.items()},
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


COLUMNS = {"image": "photo", "mask": "segmentation", "label": "state"}


def save(table, folder) -> str:
    table.save_to_disk(folder)
    return folder


def test_saved_data_set_by_its_columns(tmp_path):
    text = datasets.Value("string")
    table = build(
        datasets.Value("int64"), [0, 1, 1], part=(text, ["cap_2", "cap_2", None]), other=(text, ["", "", ""])
    )
    dataset = load_anomaly_dataset(save(table, tmp_path / "saved"), columns=COLUMNS | {"class_name": "part"})
    assert dataset.column_names == ["image", "mask", "label", "class_name", "object_name"]
    assert dataset.features == load_anomaly_dataset(write_class(tmp_path / "nut")).features
    assert list(dataset["label"]) == [0, 1, 1]
    assert list(dataset["class_name"]) == ["cap_2", "cap_2", "object"]
    assert list(dataset["object_name"]) == ["cap 2", "cap 2", "object"]
    assert dataset[2]["image"].getpixel((0, 0)) == (40, 40, 40)
    assert [row["mask"] is not None for row in dataset] == [False, True, True]
    assert np.array_equal(dataset[1]["mask"], drawn_mask())


def test_own_data_saved_and_read_again_are_the_same(tmp_path, mvtec):
    original = load_anomaly_dataset(mvtec, object_name="part")
    again = load_anomaly_dataset(save(original, tmp_path / "saved"))
    for name in ("label", "class_name", "object_name"):
        assert list(again[name]) == list(original[name])
    assert all(np.array_equal(one["image"], other["image"]) for one, other in zip(again, original, strict=True))


@pytest.mark.parametrize(
    ("feature", "labels", "expected"),
    [
        (datasets.ClassLabel(names=["bad", "good"]), ["bad", "good"], [1, 0]),
        (datasets.ClassLabel(names=["crack", "dent", "Normal"]), ["dent", "crack"], [1, 1]),
        (datasets.ClassLabel(names=["0", "1"]), ["1", "0"], [1, 0]),
        (datasets.ClassLabel(names=["normal", "anomalous"]), [1, 0], [1, 0]),
        (datasets.Value("string"), ["scratch", "good"], [1, 0]),
        (datasets.Value("string"), ["1", "0"], [1, 0]),
        (datasets.Value("bool"), [True, False], [1, 0]),
        (datasets.Value("float32"), [1.0, 0.0], [1, 0]),
        (datasets.Value("int8"), [1, 1], [1, 1]),
    ],
)
def test_ways_to_write_a_label(tmp_path, feature, labels, expected):
    dataset = load_anomaly_dataset(save(build(feature, labels), tmp_path / "saved"), columns=COLUMNS)
    assert list(dataset["label"]) == expected


@pytest.mark.parametrize(
    ("feature", "labels", "message"),
    [
        (
            datasets.ClassLabel(names=["a", "b"]),
            ["a", "b"],
            "column 'state' has the labels a, b: they must be 0 and 1,",
        ),
        (datasets.Value("string"), ["dent", "crack"], "has the labels dent, crack: .* good, ok or normal"),
        (datasets.Value("int64"), [0, 2], "has the labels 0, 2"),
        (datasets.Value("int64"), list(range(9)), r"has the labels 0, 1, 2, 3, 4, \.\.\."),
        (datasets.Value("string"), ["good", None], "row 1 has no label in column 'state': take it out"),
        (datasets.ClassLabel(names=["good", "bad"]), [0, -1], "row 1 has no label"),
    ],
)
def test_labels_that_say_nothing_are_errors(tmp_path, feature, labels, message):
    folder = save(build(feature, labels), tmp_path / "saved")
    with pytest.raises(ValueError, match=message):
        load_anomaly_dataset(folder, columns=COLUMNS)


def test_masks_and_classes_may_be_missing(tmp_path):
    table = build(datasets.Value("int64"), [0, 1]).select_columns(["photo", "state"])
    folder = save(table, tmp_path / "saved")
    plain = load_anomaly_dataset(folder, columns={"image": "photo", "label": "state"})
    assert [row["mask"] for row in plain] == [None, None]
    assert set(plain["class_name"]) == set(plain["object_name"]) == {"object"}
    named = load_anomaly_dataset(folder, columns={"image": "photo", "label": "state"}, object_name="bottle cap")
    assert set(named["class_name"]) == set(named["object_name"]) == {"bottle cap"}


def test_columns_with_names_for_numbers(tmp_path):
    parts = datasets.ClassLabel(names=["metal_nut", "bolt"])
    folder = save(build(datasets.Value("int64"), [0, 1], part=(parts, [1, 0])), tmp_path / "saved")
    dataset = load_anomaly_dataset(folder, columns=COLUMNS | {"class_name": "part"})
    assert list(dataset["class_name"]) == ["bolt", "metal_nut"]
    assert list(dataset["object_name"]) == ["bolt", "metal nut"]


def test_splits(tmp_path):
    splits = {"train": build(datasets.Value("int64"), [0, 1, 1]), "holdout": build(datasets.Value("int64"), [0, 1])}
    folder = save(datasets.DatasetDict(splits), tmp_path / "saved")
    assert len(load_anomaly_dataset(folder, columns=COLUMNS, split="holdout")) == 2
    for split in (None, "test"):
        with pytest.raises(ValueError, match=rf"`split` \({split}\) must be one that .* has: train, holdout"):
            load_anomaly_dataset(folder, columns=COLUMNS, split=split)
    alone = save(datasets.DatasetDict({"train": splits["train"]}), tmp_path / "alone")
    assert len(load_anomaly_dataset(alone, columns=COLUMNS)) == 3


def test_single_split_with_another_name(tmp_path):
    folder = save(build(datasets.Value("int64"), [0, 1]), tmp_path / "saved")
    with pytest.raises(ValueError, match="`split` 'train': .*saved' is a single split, None: leave it out"):
        load_anomaly_dataset(folder, columns=COLUMNS, split="train")


@pytest.mark.parametrize("file", ["pq/a.parquet", "pq/data/train-00000-of-00001.parquet"])
def test_parquet(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    build(datasets.Value("int64"), [0, 1]).to_parquet(path)
    for source in (tmp_path / "pq", path):
        dataset = load_anomaly_dataset(source, columns=COLUMNS)
        assert list(dataset["label"]) == [0, 1]
        assert dataset[1]["mask"].getpixel((0, 0)) == 255


@pytest.fixture
def picture_folder(tmp_path):
    """Pictures with a metadata file, as `datasets` has them."""
    folder = tmp_path / "pictures"
    entries = []
    for number, label in enumerate(["good", "dent", "dent"]):
        write_picture(folder / f"{number}.png")
        entry = {"file_name": f"{number}.png", "label": label, "mask_file_name": None}
        if label != "good":
            write_mask(folder / "masks" / f"{number}.png")
            entry["mask_file_name"] = f"masks/{number}.png"
        entries.append(entry)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_pictures_with_a_metadata_file(picture_folder):
    dataset = load_anomaly_dataset(picture_folder)
    assert list(dataset["label"]) == [0, 1, 1]
    assert [row["mask"] is not None for row in dataset] == [False, True, True]


def test_linked_pictures_out_of_the_folder_are_refused(picture_folder, tmp_path):
    outside = write_picture(tmp_path / "outside.png")
    (picture_folder / "2.png").unlink()
    (picture_folder / "2.png").symlink_to(outside)
    with pytest.raises(ValueError, match="pictures/2.png: lies outside of '.*pictures'"):
        load_anomaly_dataset(picture_folder)


def test_a_list_called_metadata_is_a_list(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"image_path": "a.png", "label": 1}\n')
    assert list(load_anomaly_dataset(tmp_path)["label"]) == [1]


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"has no column 'image' for the image: name one of \['photo', 'segmentation', 'state'\]"),
        ({"image": "photo"}, "has no column 'label' for the label"),
        (COLUMNS | {"mask": "masks"}, "has no column 'masks' for the mask"),
        (COLUMNS | {"image": "state"}, "column 'state' holds no pictures for the image but int64"),
        (COLUMNS | {"mask": "state"}, "column 'state' holds no pictures for the mask but int64"),
    ],
)
def test_wrong_columns_are_named(tmp_path, columns, message):
    folder = save(build(datasets.Value("int64"), [0, 1]), tmp_path / "saved")
    with pytest.raises(ValueError, match=message) as error:
        load_anomaly_dataset(folder, columns=columns)
    assert "\n" not in str(error.value)


def test_mask_of_another_size_names_its_row(tmp_path):
    table = datasets.Dataset.from_dict(
        {"image": [picture(), picture()], "mask": [None, drawn_mask(9)], "label": [0, 1]},
        features=datasets.Features(
            {"image": datasets.Image(), "mask": datasets.Image(), "label": datasets.Value("int64")}
        ),
    )
    folder = save(table, tmp_path / "saved")
    with pytest.raises(ValueError, match="the mask of picture 1: a mask of 9 x 12 pixels"):
        load_anomaly_dataset(folder)
    assert list(load_anomaly_dataset(folder, strict=False)["label"]) == [0]


def test_columns_and_roots_where_they_do_not_belong(tmp_path, mvtec):
    with pytest.raises(ValueError, match="`columns` belong to data sets of the package `datasets`, but '.*mvtec'"):
        load_anomaly_dataset(mvtec, columns={"image": "photo"})
    folder = save(build(datasets.Value("int64"), [0, 1]), tmp_path / "saved")
    with pytest.raises(ValueError, match="`root` belongs to lists"):
        load_anomaly_dataset(folder, root=tmp_path)


def test_damaged_data_sets_are_named_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "dataset_info.json").write_text("{}")
    (tmp_path / "broken.parquet").write_bytes(b"none")
    for name in ("empty", "broken.parquet"):
        with pytest.raises(FileNotFoundError, match=f"`data` '.*{name}' cannot be read: ") as error:
            load_anomaly_dataset(tmp_path / name)
        assert "\n" not in str(error.value)


def test_id_of_the_hub_is_asked_for_as_it_is(tmp_path, monkeypatch):
    """What the Hub would hand out comes from here."""
    asked = []
    splits = datasets.DatasetDict({"train": build(datasets.Value("int64"), [0, 1, 1])})
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: asked.append(arguments) or splits)
    monkeypatch.chdir(tmp_path)
    assert list(load_anomaly_dataset("user/parts", columns=COLUMNS)["label"]) == [0, 1, 1]
    assert asked == [("user/parts",)]


def test_id_that_the_hub_cannot_give_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="'nobody/nothing' is no file or folder here and cannot be had from"):
        load_anomaly_dataset("nobody/nothing")
    with pytest.raises(FileNotFoundError, match="`data` 'nothing' does not exist: give"):
        load_anomaly_dataset("nothing")
