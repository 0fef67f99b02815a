"""`moeclip evaluate` from the command line to the results file."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import build_clip, randomize_adapters
from PIL import Image

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.cli import main
from moeclip_hf.data import load_anomaly_dataset


@pytest.fixture
def model_folder(tmp_path, tiny_tokenizer):
    torch.manual_seed(0)
    model = MoECLIPForAnomalyDetection.from_clip(build_clip(), image_size=84, moe_lora={"r": 4, "lora_alpha": 8})
    randomize_adapters(model)
    model.save_pretrained(tmp_path / "model")
    MoECLIPProcessor(MoECLIPImageProcessor(size=84), tiny_tokenizer).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def data(tmp_path):
    """A list of two classes; the anomalous images of one have no masks."""
    rng, folder, entries = np.random.default_rng(0), tmp_path / "data", []
    folder.mkdir()
    for name in ("bolt", "nut"):
        for number in range(4):
            entry = {"image_path": f"{name}{number}.png", "label": number % 2, "class_name": name}
            Image.fromarray(rng.integers(0, 255, (30, 30, 3), dtype=np.uint8)).save(folder / entry["image_path"])
            if name == "bolt" and number % 2:
                entry["mask_path"] = f"{name}{number}_mask.png"
                Image.fromarray(np.eye(30, dtype=np.uint8) * 255).save(folder / entry["mask_path"])
            entries.append(entry)
    (folder / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def evaluate(*args):
    return main(["evaluate", *map(str, args)])


def test_writes_the_results_and_prints_the_table(model_folder, data, tmp_path, capsys):
    output = tmp_path / "out" / "results.json"
    code = evaluate("--model", model_folder, "--data", data, "--output", output, "--batch-size", 3, "--device", "cpu")
    captured = capsys.readouterr()
    assert code == 0, captured.err
    results = json.loads(output.read_text())
    assert set(results["classes"]) == {"bolt", "nut"}
    assert results["meta"]["model"] == model_folder
    assert results["meta"]["data"] == str(data)
    assert list(results["meta"]["model_sha256"]) == ["model.safetensors"]
    assert results["meta"]["training"] is None
    assert results["meta"]["num_anomalous_without_mask"] == 2
    assert results["classes"]["nut"]["pixel_ap"] is None
    assert results["meta"]["reasons"]["classes"]["nut"]["pixel_ap"] == "no anomalous image with a mask"
    lines = captured.out.splitlines()
    assert lines[0].split() == "object image AUROC image AP pixel AUROC pixel AP".split()
    mean = [
        f"{100 * results['mean'][metric]:.1f}" for metric in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap")
    ]
    assert lines[5].split() == ["mean", *mean]
    assert lines[3].split()[-2:] == ["-", "-"]
    assert lines[6] == "-  nut: pixel AUROC and pixel AP undefined, no anomalous image with a mask"
    assert str(output) in captured.err


def test_domain_and_precision_reach_the_model(model_folder, data, tmp_path):
    files = [tmp_path / name for name in ("industrial.json", "medical.json")]
    for file in files:
        options = ["--domain", file.stem, "--dtype", "bfloat16", "--root", data, "--mask-threshold", 7]
        assert evaluate("--model", model_folder, "--data", data / "list.jsonl", "--output", file, *options) == 0
    industrial, medical = (json.loads(file.read_text()) for file in files)
    assert (industrial["meta"]["smoothing"], medical["meta"]["smoothing"]) == ("industrial", "medical")
    assert medical["meta"]["dtype"] == "bfloat16"
    assert medical["meta"]["mask_threshold"] == 7
    assert medical["meta"]["root"] == str(data)
    assert industrial["classes"]["bolt"]["pixel_ap"] != medical["classes"]["bolt"]["pixel_ap"]


def read_meta(output):
    return json.loads(output.read_text())["meta"]


def test_own_data_of_every_kind_give_the_same(model_folder, data, tmp_path):
    """The list, the same as CSV, a saved data set under foreign names, and plain folders."""
    entries = [json.loads(line) for line in (data / "list.jsonl").read_text().splitlines()]
    rows = [f"{e['image_path']},{e['label']},{e['class_name']},{e.get('mask_path', '')}\n" for e in entries]
    (data / "list.csv").write_text("image_path,label,class_name,mask_path\n" + "".join(rows))
    saved = load_anomaly_dataset(data / "list.jsonl").rename_columns({"image": "photo", "mask": "truth"})
    saved.rename_column("class_name", "part").remove_columns("object_name").save_to_disk(tmp_path / "saved")
    for e in entries:
        folder = tmp_path / "plain" / e["class_name"]
        kind = "bad" if e["label"] else "good"
        for path, place in ((e["image_path"], kind), (e.get("mask_path"), f"ground_truth/{kind}")):
            if path:
                (folder / place).mkdir(parents=True, exist_ok=True)
                shutil.copy(data / path, folder / place / path)
    sources = {
        "list": ["--data", data / "list.jsonl"],
        "csv": ["--data", data / "list.csv"],
        "saved": ["--data", tmp_path / "saved", "--image-column", "photo", "--mask-column", "truth", "--class-column", "part"],
        "plain": ["--data", tmp_path / "plain"],
    }  # fmt: skip
    results = {}
    for name, options in sources.items():
        output = tmp_path / f"{name}.json"
        assert evaluate("--model", model_folder, "--output", output, "--device", "cpu", *options) == 0
        results[name] = json.loads(output.read_text())
    for name in ("csv", "saved", "plain"):
        assert results[name]["classes"] == results["list"]["classes"], name
    renamed = tmp_path / "renamed.json"
    options = [*sources["list"], "--object-name", "hexagonal thing"]
    assert evaluate("--model", model_folder, "--output", renamed, "--device", "cpu", *options) == 0
    assert json.loads(renamed.read_text())["classes"] != results["list"]["classes"]


def test_benchmark_with_its_domain(model_folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "kvasir" / name).mkdir(parents=True)
    for number in range(2):
        picture = Image.fromarray(rng.integers(0, 255, (30, 30, 3), dtype=np.uint8))
        picture.save(tmp_path / "kvasir" / "images" / f"{number}.png")
        Image.fromarray(np.eye(30, dtype=np.uint8) * 255).save(tmp_path / "kvasir" / "masks" / f"{number}.png")
    output = tmp_path / "results.json"
    data = ["--model", model_folder, "--data", "kvasir", "--root", tmp_path / "kvasir", "--output", output]
    assert evaluate(*data, "--device", "cpu") == 0
    assert read_meta(output)["smoothing"] == "medical"
    assert list(json.loads(output.read_text())["classes"]) == ["kvasir"]
    assert "not the whole of Kvasir: kvasir: 2 of 1000 anomalous pictures" in capsys.readouterr().err
    assert evaluate(*data, "--device", "cpu", "--domain", "industrial") == 0
    assert read_meta(output)["smoothing"] == "industrial"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "'nowhere' does not exist"),
        ({"--data": "mvtec"}, "the benchmark 'mvtec' needs `root`, the folder where it lies"),
        ({"--image-column": "photo"}, "`columns` belong to data sets of the package `datasets`"),
        ({"--split": "train"}, "`split` 'train' belongs to folders in MVTec layout"),
        ({"--model": "./nowhere"}, "nowhere"),
        ({"--model": "."}, "--model . has no processor_config.json: name a folder that `moeclip train` wrote"),
        ({"--root": "nowhere"}, "'nowhere' is not a folder"),
        ({"--batch-size": "0"}, "--batch-size is 0, but must be 1 or more"),
        ({"--mask-threshold": "-1"}, "--mask-threshold is -1, but must be 0 or more"),
        ({"--num-workers": "-1"}, "--num-workers is -1, but must be 0 or more"),
        ({"--device": "abacus"}, "--device abacus cannot be used"),
        ({"--device": "cuda:99"}, "--device cuda:99 cannot be used"),
        ({"--output": "."}, "--output . is a folder"),
    ],
)
def test_errors_are_one_line_that_names_the_argument(model_folder, data, tmp_path, capsys, change, message):
    arguments = {"--model": model_folder, "--data": data, "--output": tmp_path / "results.json", **change}
    assert evaluate(*(part for pair in arguments.items() for part in pair)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("moeclip: error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "results.json").exists()


def test_output_that_cannot_be_written_is_noticed_first(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert evaluate("--model", "nowhere", "--data", "nowhere", "--output", tmp_path / "file" / "results.json") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"--output {tmp_path / 'file' / 'results.json'} cannot be written (" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "model",
        "data",
        "output",
        "root",
        "split",
        "label-column",
        "object-name",
        "domain",
        "mask-threshold",
        "batch-size",
        "num-workers",
        "device",
        "dtype",
    ):
        assert f"--{option}" in text
