"""Results and predictions as data sets: nothing is lost, and the scores are those that the protocol ranks by."""

import datasets
import numpy as np
import pytest
import torch
from conftest import randomize_adapters
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.data import load_anomaly_dataset
from moeclip_hf.evaluation import METRICS, evaluate_model
from moeclip_hf.results_dataset import predict_dataset, results_to_dataset


@pytest.fixture
def dataset(tmp_path):
    """Five pictures of each of two objects, two of them with a bright square."""
    for name in ("bolt", "nut"):
        for index in range(5):
            pixels = np.random.default_rng(index).integers(60, 140, (60, 48, 3), dtype=np.uint8)
            kind = "spot" if index < 2 else "good"
            if index < 2:
                pixels[10:30, 8:30] = 250
                mask = np.zeros((60, 48), dtype=np.uint8)
                mask[10:30, 8:30] = 255
                truth = tmp_path / name / "ground_truth" / "spot"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{index}_mask.png")
            (tmp_path / name / "test" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / "test" / kind / f"{index}.png")
    return load_anomaly_dataset(tmp_path)


@pytest.fixture
def processor(tiny_tokenizer):
    return MoECLIPProcessor(MoECLIPImageProcessor(size=56), tiny_tokenizer)


@pytest.mark.parametrize("smoothing", ["industrial", "medical"])
def test_final_scores_give_the_results(tiny_clip, tiny_tokenizer, dataset, smoothing):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=112, moe_lora={"r": 4})
    randomize_adapters(model)
    processor = MoECLIPProcessor(MoECLIPImageProcessor(size=112), tiny_tokenizer)
    rows = predict_dataset(model, processor, dataset, smoothing=smoothing, batch_size=3)
    results = evaluate_model(model, processor, dataset, smoothing=smoothing, progress=False)
    for name, metrics in results["classes"].items():
        of_class = rows.filter(lambda row, name=name: row["class_name"] == name)
        labels, scores = of_class["label"][:], of_class["final_score"][:]
        assert roc_auc_score(labels, scores) == pytest.approx(metrics["image_auroc"])
        assert average_precision_score(labels, scores) == pytest.approx(metrics["image_ap"])


@torch.no_grad()
def test_predictions_are_the_models(tiny_model, processor, dataset):
    rows = predict_dataset(tiny_model, processor, dataset, batch_size=4, with_maps=True)
    assert len(rows) == 10
    assert rows["label"][:] == dataset["label"][:]
    assert rows["class_name"][:] == dataset["class_name"][:]
    assert rows["object_name"][:] == dataset["object_name"][:]
    assert rows.features["label"].names == ["normal", "anomalous"]
    tiny_model.eval()
    for row, sample in zip(rows, dataset, strict=True):
        outputs = tiny_model(**processor(images=sample["image"], object_names=sample["object_name"]))
        (result,) = processor.post_process_anomaly_detection(outputs, target_sizes=[(56, 56)])
        assert row["score"] == pytest.approx(result["score"], abs=1e-6)
        anomaly_map = torch.tensor(row["anomaly_map"])
        torch.testing.assert_close(anomaly_map, result["anomaly_map"], atol=1e-3, rtol=1e-5)
        assert row["map_max"] == pytest.approx(float(anomaly_map.max()))


def test_predictions_without_maps(tiny_model, processor, dataset):
    tiny_model.train()
    rows = predict_dataset(tiny_model, processor, dataset)
    assert "anomaly_map" not in rows.column_names
    assert tiny_model.training


def test_predictions_join_the_data(tiny_model, processor, dataset):
    rows = predict_dataset(tiny_model, processor, dataset).select_columns(["score", "final_score"])
    joined = datasets.concatenate_datasets([dataset, rows], axis=1)
    assert {"image", "label", "final_score"} <= set(joined.column_names)


def test_results(tiny_model, processor, dataset):
    results = evaluate_model(tiny_model, processor, dataset, progress=False)
    results["meta"] |= {"benchmark": "mvtec", "data": "somewhere"}
    other = {"mean": {}, "classes": {"scan": dict.fromkeys(METRICS)}, "meta": {"benchmark": "head_ct"}}
    rows = results_to_dataset(results, other)
    assert rows.column_names == ["benchmark", "data", "class_name", *METRICS]
    assert rows["benchmark"][:] == ["mvtec", "mvtec", "head_ct"]
    assert rows["class_name"][:] == ["bolt", "nut", "scan"]
    assert rows[0]["image_auroc"] == results["classes"]["bolt"]["image_auroc"]
    assert rows[2]["pixel_ap"] is None
    assert rows[2]["data"] is None


def test_undefined_is_none(dataset):
    values = dict.fromkeys(METRICS, float("nan"))
    rows = results_to_dataset({"mean": values, "classes": {"bolt": values}, "meta": {}})
    assert rows[0]["image_auroc"] is None


def test_no_results():
    with pytest.raises(ValueError, match="at least one"):
        results_to_dataset()
    summary = {"mean": {}, "classes": {"mvtec": {}, "btad": {}}, "meta": {"benchmarks": {"mvtec": {}, "btad": {}}}}
    with pytest.raises(ValueError, match=r"a summary of several data sets: pass .* mvtec\.json, btad\.json"):
        results_to_dataset(summary)
