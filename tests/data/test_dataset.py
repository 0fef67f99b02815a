"""Samples: the rules for masks, the numbers of objects, and the same samples with any number of workers."""

import io
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from PIL import Image
from torch.utils.data import DataLoader

from moeclip_hf import MoECLIPImageProcessor
from moeclip_hf.data import (
    AffineAugmentation,
    AnomalyDetectionDataset,
    collate_anomaly_samples,
    load_anomaly_dataset,
)

from .conftest import write_class, write_list, write_mask, write_picture


@pytest.fixture
def image_processor() -> MoECLIPImageProcessor:
    return MoECLIPImageProcessor(size=8)


def mask_values(dataset: AnomalyDetectionDataset) -> list[list[int]]:
    return [sample["mask_labels"].unique().tolist() for sample in dataset]


def test_sample(mvtec, image_processor):
    rows = load_anomaly_dataset(mvtec)
    dataset = AnomalyDetectionDataset(rows, image_processor)
    assert len(dataset) == 8
    sample = dataset[0]
    expected = image_processor(rows[0]["image"], masks=rows[0]["mask"], return_tensors="pt")
    assert torch.equal(sample["pixel_values"], expected["pixel_values"][0])
    assert torch.equal(sample["mask_labels"], expected["mask_labels"][0])
    assert sample["mask_labels"][:4, :4].all()
    assert sample["mask_labels"].sum() == 16
    assert sample["pixel_values"].dtype == torch.float32
    assert sample["mask_labels"].dtype == torch.int64
    assert set(sample) == {"pixel_values", "mask_labels", "labels", "object_ids"}
    assert (sample["labels"], sample["object_ids"]) == (1, 0)


def test_objects_are_numbered_in_the_order_of_their_first_picture(tmp_path, image_processor):
    entries = [
        {"image_path": f"{name}.png", "label": 0, "class_name": name, "object_name": object_name}
        for name, object_name in [("b", "pill"), ("a", "nut"), ("c", "pill"), ("d", "")]
    ]
    for entry in entries:
        write_picture(tmp_path / entry["image_path"])
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(write_list(tmp_path / "l.jsonl", entries)), image_processor)
    assert dataset.object_names == ["pill", "nut", "d"]
    assert dataset.object_ids == [0, 1, 0, 2]
    assert [sample["object_ids"] for sample in dataset] == [0, 1, 0, 2]
    assert dataset.class_names == ["b", "a", "c", "d"]


# --- masks --------------------------------------------------------------------------------------------------------


def test_normal_pictures_have_zero_masks_where_any_picture_has_a_mask(mvtec, image_processor):
    for mask in (mvtec / "bottle" / "ground_truth").rglob("*.png"):
        mask.unlink()
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor)
    assert mask_values(dataset) == [[-100]] * 3 + [[0]] + [[0, 1]] * 2 + [[0]] * 2


def test_without_any_mask_every_mask_is_unknown(tmp_path, image_processor):
    dataset = AnomalyDetectionDataset(
        load_anomaly_dataset(write_class(tmp_path / "nut", with_masks=False)), image_processor
    )
    assert mask_values(dataset) == [[-100]] * 4


def test_normal_picture_with_a_marked_mask_is_normal(mvtec, image_processor):
    write_mask(mvtec / "bottle" / "ground_truth" / "good" / "000.png")
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor)
    assert mask_values(dataset)[3] == [0]


def test_empty_mask_of_an_anomalous_picture_is_kept(mvtec, image_processor):
    write_mask(mvtec / "bottle" / "ground_truth" / "dent" / "000_mask.png", marked=False)
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor)
    assert mask_values(dataset)[0] == [0]
    assert dataset[0]["labels"] == 1


def test_soft_masks_are_marked_wherever_they_are_not_zero(mvtec):
    soft = np.zeros((10, 12), dtype=np.uint8)
    soft[3, 2:7] = 1, 3, 7, 15, 255
    Image.fromarray(soft).save(mvtec / "bottle" / "ground_truth" / "dent" / "000_mask.png")
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), MoECLIPImageProcessor(do_resize=False))
    assert np.array_equal(dataset[0]["mask_labels"], soft != 0)


def test_threshold_of_masks_that_were_saved_as_jpeg(tmp_path):
    """JPEG blurs the edge of a mask: above 0 the mark is too large, above 127 it is what was drawn."""
    drawn = np.zeros((40, 60), dtype=np.uint8)
    drawn[8:29, 11:42] = 255
    write_picture(tmp_path / "nut" / "test" / "dent" / "0.png", height=40, width=60)
    mask = tmp_path / "nut" / "ground_truth" / "dent" / "0.jpg"
    mask.parent.mkdir(parents=True)
    Image.fromarray(drawn).save(mask, quality=60)
    rows, unresized = load_anomaly_dataset(tmp_path), MoECLIPImageProcessor(do_resize=False)
    by_paper = AnomalyDetectionDataset(rows, unresized)[0]["mask_labels"]
    by_middle = AnomalyDetectionDataset(rows, unresized, mask_threshold=127)[0]["mask_labels"]
    assert np.array_equal(by_middle, drawn != 0)
    assert by_paper.sum() > 1.05 * by_middle.sum()
    assert np.array_equal(by_paper, np.asarray(Image.open(mask)) != 0)


def test_threshold_reaches_masks_of_a_turned_camera(tmp_path):
    """Such masks are handed out turned: their values must still be there."""
    values = np.zeros((10, 12), dtype=np.uint8)
    values[2, 3:7] = 1, 127, 128, 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image, mask = tmp_path / "nut" / "test" / "dent" / "0.png", tmp_path / "nut" / "ground_truth" / "dent" / "0.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True)
    Image.fromarray(values).save(image, exif=exif)
    Image.fromarray(values).save(mask)
    rows, unresized = load_anomaly_dataset(tmp_path), MoECLIPImageProcessor(do_resize=False)
    upright = np.rot90(values, k=-1)
    for threshold in (0, 1, 127, 254):
        dataset = AnomalyDetectionDataset(rows, unresized, mask_threshold=threshold)
        assert np.array_equal(dataset[0]["mask_labels"], upright > threshold)


def test_negative_threshold_is_an_error(mvtec, image_processor):
    with pytest.raises(ValueError, match=r"`mask_threshold` \(-1\) must be 0"):
        AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor, mask_threshold=-1)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("size", [(10, 12), (11, 11)])
def test_picture_and_mask_of_a_turned_camera(tmp_path, orientation, size):
    """The picture shows its own mask; through all of the loading both must stay on each other."""
    shown = (np.random.default_rng(0).random(size) > 0.5).astype(np.uint8) * 255
    image, mask = tmp_path / "nut" / "test" / "dent" / "0.png", tmp_path / "nut" / "ground_truth" / "dent" / "0.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(shown).save(image, exif=exif)
    Image.fromarray(shown).save(mask)
    unresized = MoECLIPImageProcessor(do_resize=False)
    rows = load_anomaly_dataset(tmp_path)
    sample = AnomalyDetectionDataset(rows, unresized)[0]
    assert torch.equal(sample["mask_labels"].bool(), sample["pixel_values"][0] > 0)
    assert not np.array_equal(sample["mask_labels"].numpy() * 255, shown)
    inputs = unresized(rows[0]["image"], masks=rows[0]["mask"], return_tensors="pt")  # by the rows' own decoding
    assert torch.equal(inputs["mask_labels"][0], sample["mask_labels"])


# --- augmentation and workers -------------------------------------------------------------------------------------


def test_augmentation_by_epoch_and_row(mvtec, image_processor):
    rows = load_anomaly_dataset(mvtec)
    plain = AnomalyDetectionDataset(rows, image_processor)
    augmentation = AffineAugmentation(seed=7)
    moved = AnomalyDetectionDataset(rows, image_processor, augmentation)
    for epoch in (0, 3):
        moved.set_epoch(epoch)
        for index in range(len(plain)):
            expected = augmentation(plain[index]["pixel_values"], plain[index]["mask_labels"], epoch, index)
            assert torch.equal(moved[index]["pixel_values"], expected[0])
            assert torch.equal(moved[index]["mask_labels"], expected[1])


def read_all(loader: DataLoader) -> dict[str, torch.Tensor]:
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_running_workers_see_the_epoch_and_the_same_samples(mvtec, image_processor, context):
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor, AffineAugmentation(seed=7))
    arguments = {"batch_size": 3, "collate_fn": collate_anomaly_samples}
    alone = DataLoader(dataset, **arguments)
    workers = DataLoader(dataset, num_workers=2, persistent_workers=True, multiprocessing_context=context, **arguments)
    seen = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        expected, found = read_all(alone), read_all(workers)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        seen.append(found["pixel_values"])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_collator(mvtec, image_processor):
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor)
    batch = collate_anomaly_samples([dataset[0], dataset[7]])
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "pixel_values": ((2, 3, 8, 8), torch.float32),
        "mask_labels": ((2, 8, 8), torch.int64),
        "labels": ((2,), torch.int64),
        "object_ids": ((2,), torch.int64),
    }
    assert batch["labels"].tolist() == [1, 0]
    assert batch["object_ids"].tolist() == [0, 1]


def test_pickle(mvtec, image_processor):
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[2]["pixel_values"], dataset[2]["pixel_values"])


# --- other sources and damage -------------------------------------------------------------------------------------


def test_selected_and_shuffled_rows(mvtec, image_processor):
    rows = load_anomaly_dataset(mvtec)
    whole = AnomalyDetectionDataset(rows, image_processor)
    part = AnomalyDetectionDataset(rows.select([7, 0]), image_processor)
    assert part.object_names == ["metal nut", "bottle"]
    assert [sample["labels"] for sample in part] == [0, 1]
    assert torch.equal(part[1]["pixel_values"], whole[0]["pixel_values"])


def as_bytes(image: Image.Image) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_pictures_in_memory(mvtec, image_processor):
    rows = load_anomaly_dataset(mvtec)
    columns = {key: list(rows[key]) for key in ("label", "class_name", "object_name")}
    columns["image"] = [as_bytes(row["image"]) for row in rows]
    columns["mask"] = [None if row["mask"] is None else as_bytes(row["mask"]) for row in rows]
    in_memory = Dataset.from_dict(columns, features=Features({key: rows.features[key] for key in columns}))
    for one, other in zip(
        AnomalyDetectionDataset(in_memory, image_processor),
        AnomalyDetectionDataset(rows, image_processor),
        strict=True,
    ):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert torch.equal(one["mask_labels"], other["mask_labels"])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damaged_picture_is_named_in_one_line(mvtec, image_processor, num_workers):
    path = mvtec / "bottle" / "test" / "good" / "000.png"
    Image.effect_noise((120, 100), 50).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    dataset = AnomalyDetectionDataset(load_anomaly_dataset(mvtec), image_processor)
    loader = DataLoader(dataset, num_workers=num_workers, collate_fn=collate_anomaly_samples)
    with pytest.raises(ValueError, match=r"^/.*good/000.png: .*truncated") as error:
        list(loader)
    assert "\n" not in str(error.value)


def test_data_set_of_another_kind_is_an_error(mvtec, image_processor):
    rows = load_anomaly_dataset(mvtec)
    with pytest.raises(ValueError, match=r"`dataset` lacks the columns \['mask'\]: load it with"):
        AnomalyDetectionDataset(rows.remove_columns("mask"), image_processor)
    with pytest.raises(ValueError, match="`dataset` is empty"):
        AnomalyDetectionDataset(rows.select([]), image_processor)
