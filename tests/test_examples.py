"""The example scripts run, and do what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peft import PeftConfig
from PIL import Image

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor, MoELoraConfig
from moeclip_hf.cli import main
from moeclip_hf.training_record import read_training_record


ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path):
    """Four small pictures of one object in MVTec layout, a bright square on half of them."""
    for index in range(4):
        pixels = np.random.default_rng(index).integers(80, 120, (56, 56, 3), dtype=np.uint8)
        kind = "spot" if index % 2 else "good"
        if index % 2:
            pixels[10:30, 20:50] = 250
            mask = np.zeros((56, 56), dtype=np.uint8)
            mask[10:30, 20:50] = 255
            (tmp_path / "data/tile/ground_truth/spot").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(tmp_path / f"data/tile/ground_truth/spot/{index}_mask.png")
        (tmp_path / "data/tile/test" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data/tile/test" / kind / f"{index}.png")
    return str(tmp_path / "data")


def run_script(name, *options, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "examples" / name), *options],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def read_losses(folder):
    history = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in history if "loss" in line]


def test_train_is_moeclip_train(tiny_clip_folder, data, tmp_path):
    options = ["--clip", tiny_clip_folder, "--data", data, "--image-size", "56", "--cpu"]
    options += ["--max-steps", "3", "--logging-steps", "1", "--num-workers", "1"]
    assert main(["train", *options, "--output", str(tmp_path / "command")]) == 0
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
    done = run_script("train.py", *options, "--output", str(tmp_path / "script"), launcher=launcher)
    assert "trainable params" in done.stderr
    assert read_losses(tmp_path / "script") == read_losses(tmp_path / "command")
    assert len(read_losses(tmp_path / "script")) == 3
    records = [read_training_record(tmp_path / name) for name in ("script", "command")]
    assert records[0]["class_names"] == ["tile"]
    assert records[0] | {"created": None} == records[1] | {"created": None}


def test_train_no_trainer(tiny_clip_folder, data, tmp_path):
    done = run_script(
        "train_no_trainer.py", "--clip", tiny_clip_folder, "--data", data, "--validation-data", data,
        "--image-size", "56", "--epochs", "2", "--output", str(tmp_path / "model"),
    )  # fmt: skip
    assert done.stdout.count("tile") + done.stderr.count("tile") >= 2  # a table after each epoch
    model = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
    MoECLIPProcessor.from_pretrained(tmp_path / "model")
    assert all(experts.lora_B.abs().sum() > 0 for experts in model.moe_lora_layers().values())


def test_use_as_peft_adapter(tiny_clip_folder, tmp_path):
    done = run_script(
        "use_as_peft_adapter.py",
        "--clip",
        tiny_clip_folder,
        "--layers",
        "1",
        "3",
        "--output",
        str(tmp_path / "adapter"),
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("trainable params: 1,280 || all params: ")
    before, after = (float(number) for number in lines[1].removeprefix("loss ").split(" -> "))
    assert after < before
    assert lines[2:] == [
        "trained: embeddings equal those before saving: True",
        "untrained: embeddings equal those before saving: False",
        "disabled: embeddings equal the plain CLIP's: True",
    ]
    assert type(PeftConfig.from_pretrained(tmp_path / "adapter")) is MoELoraConfig


@pytest.mark.slow
def test_train_no_trainer_on_two_processes(tiny_clip_folder, data, tmp_path):
    """One trained model, one table an epoch: the processes share the work, and meet again after each measurement."""
    done = run_script(
        "train_no_trainer.py", "--clip", tiny_clip_folder, "--data", data, "--validation-data", data,
        "--image-size", "56", "--epochs", "2", "--output", str(tmp_path / "model"),
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    )  # fmt: skip
    assert (done.stdout + done.stderr).count("mean") == 2
    MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")


def test_train_no_trainer_is_short():
    assert len((ROOT / "examples" / "train_no_trainer.py").read_text().splitlines()) < 200


@pytest.mark.parametrize("what", [[], ["--accuracy"], ["--speed"]])
def test_benchmark_metrics(what):
    lines = run_script("benchmark_metrics.py", *what, "--num-images", "4", "--size", "40").stdout.splitlines()
    if what == ["--accuracy"]:
        errors = [float(cell) for line in lines[2:] for cell in line.split()[-4:]]
        assert len(errors) == 4 * 18
        assert max(errors) < 1e-12  # so few scores are exact
    elif what == ["--speed"]:
        assert sum("x faster" in line for line in lines) == 2
    else:
        assert lines[0] == "4 images, 0 M pixels, 1 classes"
        assert any(line.startswith("peak memory") for line in lines)
        assert [line.split()[0] for line in lines if line.endswith(" s")] == ["drawing", "metrics,", "metrics,"]


def test_pipeline(data, tmp_path):
    pictures = sorted((Path(data) / "tile").glob("test/*/*.png"))
    options = ["--object", "tile", "--threshold", "0", "--mask-threshold", "-1000000", *map(str, pictures)]
    lines = run_script("pipeline.py", *options).stdout.splitlines()
    assert len(lines) == 2 * len(pictures)
    for picture, verdict, region in zip(pictures, lines[::2], lines[1::2], strict=True):
        assert verdict.startswith(f"{picture} (56 x 56): anomalous, score 0.")
        assert region.startswith("  columns 0 to 56, rows 0 to 56: up to ")
    options = ["--threshold", "1.01", "--mask-threshold", "1000000", "--domain", "medical", str(pictures[0])]
    (line,) = run_script("pipeline.py", *options).stdout.splitlines()
    assert ": normal, score 0." in line
