"""`moeclip evaluate` from the command line to the results file."""

import json

import numpy as np
import pytest
import torch
from conftest import build_clip, randomize_adapters
from PIL import Image

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.cli import main


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "'nowhere' does not exist"),
        ({"--model": "./nowhere"}, "nowhere"),
        ({"--root": "nowhere"}, "'nowhere' is not a folder"),
        ({"--batch-size": "0"}, "--batch-size is 0, but must be 1 or more"),
        ({"--mask-threshold": "-1"}, "`mask_threshold` (-1) must be 0 or more"),
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
        "domain",
        "mask-threshold",
        "batch-size",
        "num-workers",
        "device",
        "dtype",
    ):
        assert f"--{option}" in text
