"""The Auto classes: after a bare import, and from a saved folder's own code where the package is not installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from auto_classes import run as run_model
from conftest import CONTEXT, VOCABULARY, build_clip, randomize_adapters
from core_environment import ROOT, declared, make_environment, run
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, CLIPTokenizer

from moeclip_hf import MoECLIPConfig, MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor


SCRIPT = Path(__file__).with_name("auto_classes.py")
KINDS = ("full", "adapters")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model saved whole and as adapters on a tiny CLIP beside them, each with its processor."""
    root = tmp_path_factory.mktemp("saved")
    build_clip().save_pretrained(root / "clip")
    CLIPTokenizer(vocab=VOCABULARY, merges=[], model_max_length=CONTEXT).save_pretrained(root / "clip")
    torch.manual_seed(0)
    model = MoECLIPForAnomalyDetection.from_clip(root / "clip", image_size=70, moe_lora={"r": 4})
    randomize_adapters(model)
    processor = MoECLIPProcessor.from_clip(root / "clip", model.config)
    for kind in KINDS:
        model.save_pretrained(root / kind, adapters_only=kind == "adapters")
        processor.save_pretrained(root / kind)
    return root


@pytest.fixture(scope="module")
def expected(folders):
    """What the saved model computes, by the package's classes in this process."""
    model = MoECLIPForAnomalyDetection.from_pretrained(folders / "full")
    processor = MoECLIPProcessor.from_pretrained(folders / "full")
    return run_model(model, processor, processor.image_processor)


@pytest.fixture(scope="module")
def remote(folders, tmp_path_factory):
    """What a process without the package saved: each kind loaded by its own code, then those loaded and saved again.

    A third folder's code has another logit scale, as a later version might.
    """
    root = tmp_path_factory.mktemp("remote")
    shutil.copytree(folders / "full", root / "halved")
    code = root / "halved" / "modeling_moeclip.py"
    code.write_text(code.read_text().replace("LOGIT_SCALE = 100.0", "LOGIT_SCALE = 50.0"))
    first = [(folders / kind, root / f"first_{kind}") for kind in KINDS] + [(root / "halved", root / "first_halved")]
    second = [(root / f"first_{kind}", root / f"second_{kind}") for kind in KINDS]
    python = make_environment(root / "core", [str(one) for one in declared()[""]])
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(root / "modules")}
    for pairs in (first, second):
        arguments = [path for pair in pairs for path in pair]
        run(python, "-I", SCRIPT, "remote-code", *arguments, cwd=root, **environment)
    return root


def assert_same(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name in expected:
        assert torch.equal(outputs[name], expected[name]), name


def code_of(folder):
    return {file.name: file.read_text() for file in folder.glob("*.py")}


def test_a_bare_import_is_enough(folders, expected, tmp_path):
    arguments = [part for kind in KINDS for part in (folders / kind, tmp_path / kind)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, SCRIPT, "package", *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kind in KINDS:
        assert_same(load_file(tmp_path / kind / "outputs.safetensors"), expected)


def test_auto_classes_find_the_packages_own(folders):
    for kind in KINDS:
        assert type(AutoConfig.from_pretrained(folders / kind)) is MoECLIPConfig
        assert type(AutoModel.from_pretrained(folders / kind)) is MoECLIPForAnomalyDetection
        assert type(AutoProcessor.from_pretrained(folders / kind)) is MoECLIPProcessor
        assert type(AutoImageProcessor.from_pretrained(folders / kind)) is MoECLIPImageProcessor
        # code that came with the weights is not run where the package is installed
        assert type(AutoModel.from_pretrained(folders / kind, trust_remote_code=True)) is MoECLIPForAnomalyDetection


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_the_folders_own_code(remote, expected, kind):
    assert_same(load_file(remote / f"first_{kind}" / "outputs.safetensors"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_the_second_generation(remote, expected, kind):
    assert_same(load_file(remote / f"second_{kind}" / "outputs.safetensors"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_generation_saves_the_same_files(folders, remote, kind):
    first, second = remote / f"first_{kind}", remote / f"second_{kind}"
    assert code_of(first) == code_of(second) == code_of(folders / kind)
    assert load_file(second / "model.safetensors").keys() == load_file(folders / kind / "model.safetensors").keys()
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        saved, again = (json.loads((folder / name).read_text()) for folder in (folders / kind, second))
        for tower in ("vision_config", "text_config"):
            again.get(tower, {}).pop("dtype", None)  # written by transformers once a model has been loaded
        assert again == saved, name


def test_the_package_reads_what_remote_code_saved(remote, expected):
    for kind in KINDS:
        model = AutoModel.from_pretrained(remote / f"second_{kind}")
        processor = AutoProcessor.from_pretrained(remote / f"second_{kind}")
        assert_same(run_model(model, processor, processor.image_processor), expected)


def test_code_of_two_versions_stays_apart_in_one_process(remote, expected):
    halved = load_file(remote / "first_halved" / "outputs.safetensors")
    constant = 12 / 2  # 12 maps of (scale * difference + 1) / 2 each
    torch.testing.assert_close(2 * (halved["anomaly_logits"] - constant), expected["anomaly_logits"] - constant)


def test_the_model_alone_carries_every_file_of_code(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    package = ROOT / "moeclip_hf"
    assert code_of(tmp_path) == {file.name: file.read_text() for file in package.glob("*_moeclip.py")}
    configuration = json.loads((tmp_path / "config.json").read_text())
    for reference in configuration["auto_map"].values():
        assert (tmp_path / f"{reference.partition('.')[0]}.py").exists()
