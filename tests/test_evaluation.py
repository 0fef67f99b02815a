"""The benchmark protocol against a copy that keeps every map, a model's results, and the results file."""

import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from moeclip_hf import MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.data import load_anomaly_dataset
from moeclip_hf.evaluation import (
    METRICS,
    BenchmarkProtocol,
    _own_part,
    evaluate_model,
    format_results,
    write_results,
)


def reference_protocol(class_names, maps, scores, labels, masks, domain):
    """The protocol as it is written down: all maps of a class at once, normalised, fused and ranked."""
    results, class_names = {}, np.array(class_names)
    for name in dict.fromkeys(class_names):
        rows = class_names == name
        class_maps, class_scores = maps[rows].astype(np.float64), scores[rows].astype(np.float64)
        if class_maps.min() < 0 or class_maps.max() > 1:
            class_maps = (class_maps - class_maps.min()) / (class_maps.max() - class_maps.min())
        if class_scores.min() < 0 or class_scores.max() > 1:
            class_scores = (class_scores - class_scores.min()) / (class_scores.max() - class_scores.min())
        final = np.array([anomaly_map.max() for anomaly_map in class_maps])
        if domain == "industrial":
            final = 0.5 * final + 0.5 * class_scores
        known = [index for index, mask in enumerate(masks[rows]) if (mask != -100).all()]
        pixels, truth = class_maps[known].ravel(), (masks[rows][known] != 0).ravel()
        results[str(name)] = {
            "image_auroc": roc_auc_score(labels[rows], final),
            "image_ap": average_precision_score(labels[rows], final),
            "pixel_auroc": roc_auc_score(truth, pixels),
            "pixel_ap": average_precision_score(truth, pixels),
        }
    mean = {metric: np.mean([values[metric] for values in results.values()]) for metric in METRICS}
    return {"mean": mean, "classes": results}


def draw(num_images=30, scale=1.0, shift=0.0, seed=0):
    """Images of three classes in disorder; the scores' own order differs from that of the maps' maxima."""
    rng = np.random.default_rng(seed)
    class_names = [["nut", "bolt", "cable"][index] for index in rng.integers(0, 3, num_images)]
    labels = np.arange(num_images) % 2
    masks = np.zeros((num_images, 12, 10), dtype=np.int64)
    masks[labels == 1, 2:5, 3:7] = 1
    maps = np.clip(rng.normal(0.4, 0.1, masks.shape) + 0.1 * masks, 0, 1)
    scores = np.clip(rng.normal(0.5, 0.1, num_images) + 0.05 * labels, 0, 1)
    return class_names, (shift + scale * maps).astype(np.float32), scores.astype(np.float32), labels, masks


def run_protocol(class_names, maps, scores, labels, masks, domain="industrial", batch_size=7):
    protocol = BenchmarkProtocol(domain)
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        protocol.update(class_names[part], maps[part], scores[part], labels[part], masks[part])
    return protocol.compute()


def assert_same(results, expected):
    assert list(results["classes"]) == list(expected["classes"])
    assert results["mean"] == pytest.approx(expected["mean"], abs=1e-9, nan_ok=True)
    for name, values in expected["classes"].items():
        assert results["classes"][name] == pytest.approx(values, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("domain", ["industrial", "medical"])
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (80, -900), (0.1, 0.95)])
def test_protocol_equals_its_definition(domain, scale, shift):
    images = draw(scale=scale, shift=shift)
    assert_same(run_protocol(*images, domain), reference_protocol(*images, domain))


def test_image_scores_that_leave_the_unit_interval_are_normalised():
    class_names, maps, scores, labels, masks = draw()
    images = (class_names, maps, 40 * scores - 3, labels, masks)
    assert_same(run_protocol(*images), reference_protocol(*images, "industrial"))


def test_batches_make_no_difference_and_torch_is_welcome():
    images = draw(scale=50, shift=-20)
    expected = run_protocol(*images, batch_size=30)
    assert run_protocol(*images, batch_size=1) == expected
    assert run_protocol(images[0], *(torch.from_numpy(values) for values in images[1:])) == expected


@pytest.mark.parametrize("domain", ["industrial", "medical"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)])
def test_parts_merged_in_any_order_equal_the_definition(domain, order):
    class_names, maps, scores, labels, masks = draw(num_images=40, scale=30, shift=-12)
    masks[[1, 7, 9]] = -100
    images = (class_names, maps, 5 * scores - 1, labels, masks)
    parts = []
    for index in range(4):
        parts.append(BenchmarkProtocol(domain))
        rows = range(index, 40, 4) if index < 2 else range(index, 40, 4)[::-1]
        for row in rows:
            parts[index].update([class_names[row]], *(values[row : row + 1] for values in images[1:]))
    before = repr(parts[order[1]].compute())
    merged = BenchmarkProtocol(domain)
    for index in order:
        merged.merge(parts[index])
    results, expected = merged.compute(), reference_protocol(*images, domain)
    for name, values in expected["classes"].items():
        assert results["classes"][name] == pytest.approx(values, abs=1e-9)
    assert results["mean"] == pytest.approx(expected["mean"], abs=1e-9)
    assert results["meta"] == run_protocol(*images, domain)["meta"]
    assert repr(parts[order[1]].compute()) == before


def test_only_protocols_of_one_smoothing_merge():
    with pytest.raises(ValueError, match="cannot merge protocols of `smoothing` 'industrial' and 'medical'"):
        BenchmarkProtocol().merge(BenchmarkProtocol("medical"))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "num_processes"), [(14, 4, 2), (14, 4, 3), (3, 8, 2), (9, 1, 4)]
)
def test_processes_share_the_batches_of_one(num_samples, batch_size, num_processes):
    parts = [_own_part(num_samples, batch_size, rank, num_processes) for rank in range(num_processes)]
    assert [index for part in parts for index in part] == list(range(num_samples))
    assert all(part.start % batch_size == 0 for part in parts if len(part))
    assert max(map(len, parts)) <= batch_size * (num_samples // (batch_size * num_processes) + 1)


def test_unknown_masks_count_on_image_level_only():
    class_names, maps, scores, labels, masks = draw()
    masks[[1, 3, 5]] = -100
    results = run_protocol(class_names, maps, scores, labels, masks)
    assert_same(results, reference_protocol(class_names, maps, scores, labels, masks, "industrial"))
    assert results["meta"]["num_anomalous_without_mask"] == 3


def test_mask_values_count_as_anomalous_where_they_are_not_zero():
    class_names, maps, scores, labels, masks = draw()
    assert run_protocol(class_names, maps, scores, labels, 255 * masks) == run_protocol(
        class_names, maps, scores, labels, masks
    )


def test_undefined_metrics_are_nan_with_a_reason_and_left_out_of_the_mean():
    class_names, maps, scores, labels, masks = draw()
    class_names = np.array(class_names)
    masks[class_names == "cable"] = -100
    masks[class_names == "bolt"] = 0
    labels[class_names == "nut"] = 1
    results = run_protocol(class_names.tolist(), maps, scores, labels, masks)
    undefined = {name: [m for m in METRICS if math.isnan(v[m])] for name, v in results["classes"].items()}
    assert undefined == {
        "cable": ["pixel_auroc", "pixel_ap"],
        "bolt": ["pixel_auroc", "pixel_ap"],
        "nut": ["image_auroc", "image_ap"],
    }
    assert results["meta"]["reasons"] == {
        "mean": {},
        "classes": {
            "cable": dict.fromkeys(["pixel_auroc", "pixel_ap"], "no masks"),
            "bolt": dict.fromkeys(["pixel_auroc", "pixel_ap"], "every mask is empty"),
            "nut": dict.fromkeys(["image_auroc", "image_ap"], "no normal image"),
        },
    }
    assert results["mean"]["pixel_ap"] == results["classes"]["nut"]["pixel_ap"]
    expected = (results["classes"]["cable"]["image_ap"] + results["classes"]["bolt"]["image_ap"]) / 2
    assert results["mean"]["image_ap"] == pytest.approx(expected)


def test_a_metric_undefined_everywhere_is_undefined_in_the_mean():
    class_names, maps, scores, labels, masks = draw()
    results = run_protocol(class_names, maps, scores, 0 * labels, 0 * masks)
    assert all(math.isnan(value) for value in results["mean"].values())
    assert results["meta"]["reasons"]["mean"] == dict.fromkeys(METRICS, "undefined for every class")
    assert results["meta"]["reasons"]["classes"]["nut"] == dict.fromkeys(METRICS, "no anomalous image")


def test_a_class_whose_masks_are_missing_or_cover_everything_says_so():
    class_names, maps, scores, labels, masks = draw()
    masks[labels == 1] = -100
    reasons = run_protocol(class_names, maps, scores, labels, masks)["meta"]["reasons"]
    assert reasons["classes"]["nut"]["pixel_ap"] == "no anomalous image with a mask"
    reasons = run_protocol(class_names, maps, scores, labels, np.ones_like(masks))["meta"]["reasons"]
    assert reasons["classes"]["nut"] == dict.fromkeys(["pixel_auroc", "pixel_ap"], "no normal pixel")


def test_counts():
    class_names, maps, scores, labels, masks = draw(num_images=8)
    masks[1], masks[3] = 0, -100
    meta = run_protocol(class_names, maps, scores, labels, masks)["meta"]
    assert {key: value for key, value in meta.items() if key != "reasons"} == {
        "smoothing": "industrial",
        "num_images": 8,
        "num_anomalous": 4,
        "num_anomalous_without_mask": 1,
        "num_anomalous_with_empty_mask": 1,
    }


@pytest.mark.parametrize("level", [-2.0, 0.5, 7.0])
def test_maps_without_any_contrast_leave_the_image_score_alone_to_rank(level):
    class_names, maps, scores, labels, masks = draw()
    results = run_protocol(class_names, np.full_like(maps, level), scores, labels, masks)
    for name, values in results["classes"].items():
        rows = np.array(class_names) == name
        assert values["image_auroc"] == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
        assert values["pixel_auroc"] == 0.5


def test_protocol_names_what_is_wrong():
    class_names, maps, scores, labels, masks = draw(num_images=2)
    with pytest.raises(ValueError, match="'industrial' or 'medical' in the protocol, but got None"):
        BenchmarkProtocol(None)
    protocol = BenchmarkProtocol()
    with pytest.raises(ValueError, match="has seen no image"):
        protocol.compute()
    with pytest.raises(ValueError, match="`anomaly_maps` contains NaN"):
        protocol.update(class_names, maps * np.nan, scores, labels, masks)
    with pytest.raises(ValueError, match="`image_scores` contains NaN"):
        protocol.update(class_names, maps, scores * np.nan, labels, masks)
    with pytest.raises(ValueError, match=r"`class_names` \(1\), `anomaly_maps` \(2\)"):
        protocol.update(class_names[:1], maps, scores, labels, masks)
    with pytest.raises(ValueError, match=r"`masks` has shape \(2, 5, 10\)"):
        protocol.update(class_names, maps, scores, labels, masks[:, :5])
    with pytest.raises(ValueError, match=r"`labels` has shape \(1,\)"):
        protocol.update(class_names, maps, scores, labels[:1], masks)


# ---- a model ----


@pytest.fixture
def processor(tiny_tokenizer):
    return MoECLIPProcessor(MoECLIPImageProcessor(size={"height": 56, "width": 56}), tiny_tokenizer)


@pytest.fixture
def benchmark(tmp_path):
    """Two classes in MVTec layout, every picture of another size than the model's input."""
    rng = np.random.default_rng(0)
    for name in ("metal_nut", "bottle"):
        for defect, count in (("good", 3), ("dent", 4)):
            for number in range(count):
                picture = tmp_path / name / "test" / defect / f"{number:03}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(picture)
                if defect != "good":
                    mask = np.zeros((40, 50), dtype=np.uint8)
                    mask[5 * number : 5 * number + 12, 10:31] = 255
                    file = tmp_path / name / "ground_truth" / defect / f"{number:03}_mask.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(file)
    return load_anomaly_dataset(tmp_path)


def slow_results(model, processor, dataset):
    """One image at a time, prompts and all, by the processor's own post-processing."""
    maps, scores, masks = [], [], []
    for row in dataset:
        inputs = processor(images=[row["image"]], object_names=row["object_name"])
        with torch.no_grad():
            outputs = model(**inputs)
        result = processor.post_process_anomaly_detection(outputs, target_sizes=[(56, 56)])[0]
        maps.append(result["anomaly_map"].numpy())
        scores.append(result["score"])
        mask = row["mask"] or Image.new("L", row["image"].size)
        masks.append(np.asarray(mask.convert("L").resize((56, 56), Image.Resampling.NEAREST)) != 0)
    labels = np.array(dataset["label"])
    arrays = (np.stack(maps), np.array(scores), labels, np.stack(masks).astype(int))
    return reference_protocol(list(dataset["class_name"]), *arrays, "industrial")


@pytest.mark.parametrize("batch_size", [1, 5])
def test_model_results_equal_one_image_at_a_time(tiny_model, processor, benchmark, batch_size):
    tiny_model.eval()
    expected = slow_results(tiny_model, processor, benchmark)
    results = evaluate_model(tiny_model, processor, benchmark, batch_size=batch_size, progress=False)
    for name in ("metal_nut", "bottle"):
        assert results["classes"][name] == pytest.approx(expected["classes"][name], abs=1e-4)
    assert results["mean"] == pytest.approx(expected["mean"], abs=1e-4)
    assert len({round(value, 3) for value in results["mean"].values()}) == 4


def test_workers_make_no_difference(tiny_model, processor, benchmark):
    alone = evaluate_model(tiny_model, processor, benchmark, progress=False)
    helped = evaluate_model(tiny_model, processor, benchmark, num_workers=1, progress=False)
    assert helped["classes"] == alone["classes"]


def test_each_object_is_encoded_once_and_the_mode_stays(tiny_model, processor, benchmark, monkeypatch):
    encoded, seen = [], []
    encode, forward = tiny_model.get_prompt_embeds, tiny_model.forward
    monkeypatch.setattr(
        tiny_model, "get_prompt_embeds", lambda ids, mask: encoded.append(ids.shape) or encode(ids, mask)
    )

    def watch(*args, **kwargs):
        seen.append((tiny_model.training, torch.is_inference_mode_enabled()))
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_model, "forward", watch)
    tiny_model.train()
    evaluate_model(tiny_model, processor, benchmark, batch_size=2, progress=False)
    assert [shape[0] for shape in encoded] == [1, 1]
    assert seen == [(False, True)] * 7
    assert tiny_model.training


def test_meta_says_what_was_measured(tiny_model, processor, benchmark, capsys):
    meta = evaluate_model(tiny_model.to(torch.bfloat16), processor, benchmark)["meta"]
    assert meta["image_size"] == 56
    assert meta["num_images"] == 14
    assert (meta["dtype"], meta["device"], meta["smoothing"]) == ("bfloat16", "cpu", "industrial")
    assert meta["versions"]["torch"] == torch.__version__
    assert "14/14" in capsys.readouterr().err


def test_mask_rule_and_stages_are_recorded(tiny_model, processor, benchmark):
    results = evaluate_model(tiny_model, processor, benchmark, mask_threshold=254, progress=False)
    unmasked = evaluate_model(tiny_model, processor, benchmark, mask_threshold=255, progress=False)
    assert (results["meta"]["mask_threshold"], unmasked["meta"]["mask_threshold"]) == (254, 255)
    assert unmasked["meta"]["reasons"]["classes"]["bottle"]["pixel_ap"] == "every mask is empty"
    stages = results["meta"]["stage_seconds"]
    assert set(stages) == {"loading", "model", "metrics"}
    assert sum(stages.values()) <= results["meta"]["seconds"] + 0.1


def test_a_grid_too_small_for_the_domain_is_named(tiny_model, processor, benchmark):
    tiny_model.train()
    with pytest.raises(ValueError, match="needs a grid of at least 5 patches"):
        evaluate_model(tiny_model, processor, benchmark, smoothing="medical", progress=False)
    assert tiny_model.training


# ---- files and tables ----


def undefined_results():
    class_names, maps, scores, labels, masks = draw()
    return run_protocol(class_names, maps, scores, labels, 0 * masks)


def test_file_holds_null_with_a_reason(tmp_path):
    results = undefined_results()
    results["meta"]["baselines"] = {"other": {"mean": {"image_ap": math.nan}}}
    write_results(results, tmp_path / "new" / "results.json")
    read = json.loads((tmp_path / "new" / "results.json").read_text())
    assert list(read) == ["mean", "classes", "meta"]
    assert list(read["mean"]) == list(read["classes"]["nut"]) == list(METRICS)
    assert read["mean"]["pixel_ap"] is None
    assert read["classes"]["nut"]["pixel_auroc"] is None
    assert read["classes"]["nut"]["image_auroc"] == results["classes"]["nut"]["image_auroc"]
    assert read["meta"]["reasons"]["mean"]["pixel_ap"] == "undefined for every class"
    assert read["meta"]["baselines"]["other"]["mean"]["image_ap"] is None
    assert os.listdir(tmp_path / "new") == ["results.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_results({"mean": object()}, path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_results({}, tmp_path / "folder")
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["folder", "results.json"]


def test_table_in_percent():
    values = {"image_auroc": 0.98765, "image_ap": 1.0, "pixel_auroc": math.nan, "pixel_ap": None}
    reasons = {"classes": {"hazelnut": {"pixel_auroc": "no masks", "pixel_ap": "no masks"}}}
    table = format_results({"mean": values, "classes": {"hazelnut": values}, "meta": {"reasons": reasons}})
    assert table.splitlines() == [
        "object    image AUROC  image AP  pixel AUROC  pixel AP",
        "-" * 54,
        "hazelnut         98.8     100.0            -         -",
        "-" * 54,
        "mean             98.8     100.0            -         -",
        "-  hazelnut: pixel AUROC and pixel AP undefined, no masks",
    ]
