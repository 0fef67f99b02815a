"""Benchmarks one after the other: what is found, what is refused, what is kept, and the summary."""

import json
import shutil

import pytest
from conftest import build_clip, randomize_adapters
from data.miniatures import write_miniature

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor, benchmarking
from moeclip_hf.benchmarking import find_benchmarks, find_trained_objects, run_benchmarks
from moeclip_hf.data.benchmarks import BENCHMARKS
from moeclip_hf.evaluation import METRICS
from moeclip_hf.training_record import TRAINING_RECORD_KEYS, write_training_record


KEYS = ("dtd_synthetic", "head_ct", "cvc_300")
TEXTURES = ["Mesh_114", "Woven_001"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three benchmarks in miniature: two classes, one without masks, one without normal pictures."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for key in KEYS:
        (folder / key).mkdir()
        write_miniature(folder / key, key)
    for texture in (folder / "dtd_synthetic").iterdir():
        if texture.name not in TEXTURES:
            shutil.rmtree(texture)
    return folder


@pytest.fixture
def model(tmp_path):
    model = MoECLIPForAnomalyDetection.from_clip(build_clip(), image_size=84, moe_lora={"r": 4, "lora_alpha": 8})
    randomize_adapters(model)
    model.save_pretrained(tmp_path / "model")
    return model.eval()


@pytest.fixture
def run(model, root, tiny_tokenizer, tmp_path):
    processor = MoECLIPProcessor(MoECLIPImageProcessor(size=84), tiny_tokenizer)

    def call(**options):
        arguments = {"model_name": str(tmp_path / "model"), "data_root": root, "output": tmp_path / "out", **options}
        return run_benchmarks(model, processor, progress=False, **arguments)

    return call


def record(**changes):
    values = {"preset": "paper", "seed": 7, "class_names": ["screw"], "object_names": ["screw"], **changes}
    return dict.fromkeys(TRAINING_RECORD_KEYS) | values


def test_one_file_a_benchmark_and_a_summary(run, root, tmp_path, caplog):
    caplog.set_level("INFO", logger="moeclip_hf")
    summary = run(mask_threshold=127, batch_size=2)
    files = {key: json.loads((tmp_path / "out" / f"{key}.json").read_text()) for key in KEYS}
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert caplog.text.count("holds no folder mvtec, visa") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*(f"{k}.json" for k in KEYS), "results.json"]
    )
    assert list(files["dtd_synthetic"]["classes"]) == TEXTURES
    assert written["classes"] == {key: files[key]["mean"] for key in KEYS}
    assert (
        written["mean"]["image_ap"]
        == (files["dtd_synthetic"]["mean"]["image_ap"] + files["head_ct"]["mean"]["image_ap"]) / 2
    )
    assert (
        written["mean"]["pixel_ap"]
        == (files["dtd_synthetic"]["mean"]["pixel_ap"] + files["cvc_300"]["mean"]["pixel_ap"]) / 2
    )
    assert written["mean"] == summary["mean"]
    assert [metric for metric in METRICS if written["classes"]["head_ct"][metric] is None] == [
        "pixel_auroc",
        "pixel_ap",
    ]
    assert written["meta"]["reasons"]["classes"] == {
        "head_ct": {"pixel_auroc": "no masks", "pixel_ap": "no masks"},
        "cvc_300": {"image_auroc": "no normal image", "image_ap": "no normal image"},
    }
    meta = files["dtd_synthetic"]["meta"]
    assert list(meta["model_sha256"]) == ["model.safetensors"]
    assert len(meta["model_sha256"]["model.safetensors"]) == 64
    assert (meta["mask_threshold"], meta["image_size"], meta["smoothing"], meta["dtype"]) == (
        127,
        84,
        "industrial",
        "float32",
    )
    assert files["cvc_300"]["meta"]["smoothing"] == "medical"
    assert meta["data"] == str(root / "dtd_synthetic")
    assert meta["training"] is meta["seed"] is meta["preset"] is None
    assert {"commit", "created", "versions", "model_commit"} <= set(meta)
    assert set(meta["stage_seconds"]) == {"loading", "model", "metrics", "writing"}
    assert meta["count_differences"] == [
        *(f"{name}: no pictures" for name in BENCHMARKS["dtd_synthetic"].object_names if name not in TEXTURES),
        "in all: 2 of 357 normal pictures",
        "in all: 4 of 947 anomalous pictures",
    ]
    assert set(written["meta"]["benchmarks"]["dtd_synthetic"]["stage_seconds"]) == {
        "loading",
        "model",
        "metrics",
        "writing",
    }


def test_finished_files_are_kept_and_only_those_of_the_same_run(run, model, tmp_path, monkeypatch):
    evaluated, evaluate = [], benchmarking.evaluate_model
    monkeypatch.setattr(
        benchmarking, "evaluate_model", lambda *args, **options: evaluated.append(1) or evaluate(*args, **options)
    )
    expected = run(benchmarks=["head_ct"])
    (tmp_path / "out" / "results.json").unlink()
    again = run(benchmarks=["head_ct"])
    assert again["classes"]["head_ct"] == pytest.approx(expected["classes"]["head_ct"], nan_ok=True)
    assert len(evaluated) == 1
    assert list(run(benchmarks=["cvc_300"])["classes"]) == ["head_ct", "cvc_300"]
    assert len(evaluated) == 2
    with pytest.raises(
        ValueError, match=r"head_ct.json holds results of `mask_threshold` 0, not 9: name another --output"
    ):
        run(benchmarks=["head_ct"], mask_threshold=9)
    randomize_adapters(model, seed=5)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="head_ct.json holds results of another model"):
        run(benchmarks=["cvc_300"])
    (tmp_path / "out" / "head_ct.json").write_text("{}")
    with pytest.raises(ValueError, match="head_ct.json holds no results of `moeclip benchmark`"):
        run(benchmarks=["cvc_300"])
    assert len(evaluated) == 2


def test_trained_objects_are_refused_or_left_out_or_marked(run, tmp_path, caplog):
    write_training_record(tmp_path / "model", record(benchmark="head_ct", seed=3))
    with pytest.raises(ValueError, match="was trained on objects of head_ct .*--allow-trained-objects"):
        run(benchmarks=["head_ct", "cvc_300"])
    assert not (tmp_path / "out").exists()
    summary = run()
    assert list(summary["classes"]) == ["dtd_synthetic", "cvc_300"]
    assert "the model was trained on its objects: head_ct" in summary["meta"]["skipped"]["head_ct"]
    assert "head_ct: left out" in caplog.text
    summary = run(allow_trained_objects=True)
    assert summary["meta"]["trained_objects"] == {"head_ct": ["head_ct"]}
    assert json.loads((tmp_path / "out" / "head_ct.json").read_text())["meta"]["trained_objects"] == ["head_ct"]
    assert (summary["meta"]["preset"], summary["meta"]["seed"]) == ("paper", 3)
    assert summary["meta"]["skipped"] == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["screw"]),
        ({"class_names": ["Metal Nut"], "object_names": ["Dark  Bottle"]}, ["metal_nut", "dark bottle"]),
        ({"class_names": ["candle"], "object_names": ["candle", "object"]}, []),
        ({"benchmark": "mvtec"}, list(BENCHMARKS["mvtec"].object_names)),
        ({"benchmark": "visa", "class_names": [], "object_names": []}, []),
    ],
)
def test_trained_objects_are_told_by_benchmark_class_and_object(changes, expected):
    assert find_trained_objects(record(**changes), BENCHMARKS["mvtec"]) == expected


def test_names_of_a_list_count_as_well():
    assert find_trained_objects(record(class_names=["gear"]), BENCHMARKS["rsdd"], ["gear"], ["metal"]) == ["gear"]
    assert find_trained_objects(None, BENCHMARKS["rsdd"]) == []


def test_absent_benchmarks(root):
    assert list(find_benchmarks(root)) == list(KEYS)
    assert list(find_benchmarks(root, ["cvc_300", "dtd_synthetic"])) == ["dtd_synthetic", "cvc_300"]
    with pytest.raises(FileNotFoundError, match="holds no folder 'rsdd'"):
        find_benchmarks(root, ["dtd_synthetic", "rsdd"])
    with pytest.raises(FileNotFoundError, match="holds none of the folders"):
        find_benchmarks(root / "dtd_synthetic")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        find_benchmarks(root / "nowhere")
    with pytest.raises(ValueError, match="'mvtek'"):
        find_benchmarks(root, ["mvtek"])


def test_an_unreadable_picture_is_left_out_or_stops(run, root, tmp_path):
    folder = tmp_path / "damaged" / "cvc_300"
    folder.mkdir(parents=True)
    write_miniature(folder, "cvc_300")
    picture = folder / "images" / "10.png"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    with pytest.raises(ValueError, match="10.png"):
        run(data_root=folder.parent, strict=True)
    summary = run(data_root=folder.parent)
    about = summary["meta"]["benchmarks"]["cvc_300"]
    assert (about["num_images"], about["num_left_out"]) == (1, 1)
    meta = json.loads((tmp_path / "out" / "cvc_300.json").read_text())["meta"]
    (left_out,) = meta["left_out"]
    assert left_out.startswith(f"{picture}: ")
    assert meta["num_left_out"] == 1
    with pytest.raises(ValueError, match=r"cvc_300.json was measured without 1 of the pictures: move that file away"):
        run(data_root=folder.parent, strict=True)


def test_a_missing_picture_of_the_test_split_is_left_out_or_stops(run, tmp_path):
    write_miniature(tmp_path / "data" / "visa", "visa")
    (tmp_path / "data" / "visa" / "candle" / "Data" / "Images" / "Normal" / "0000.JPG").unlink()
    with pytest.raises(FileNotFoundError, match="1cls.csv, line .*: there is no file .*0000.JPG"):
        run(data_root=tmp_path / "data", strict=True)
    run(data_root=tmp_path / "data")
    (left_out,) = json.loads((tmp_path / "out" / "visa.json").read_text())["meta"]["left_out"]
    assert "there is no file" in left_out
