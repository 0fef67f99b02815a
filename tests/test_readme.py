"""Every snippet of the README runs, in the README's order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data.miniatures import write_miniature
from PIL import Image


ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SNIPPETS = re.findall(r"^```(python|bash)\n(.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE)

# What stands in for ids and paths that cannot be reached offline, and for what would take minutes. `{clip}`, `{data}`
# and `{root}` are a random CLIP of a few thousand parameters, a folder of a few images, and this checkout.
STAND_INS = {
    "make demo": "make --directory {root} --dry-run demo",
    "make space": "make --directory {root} --dry-run space",
    "make test": "make --directory {root} --dry-run test",
    "openai/clip-vit-large-patch14-336": "{clip}",
    "data check my_data": "data check {data}",
    "--data my_data": "--data {data}",
    "--data my_test_data": "--data {data}",
    "--data-root benchmarks": "--data-root {benchmarks}",
    "--output outputs/my_model": "--output outputs/my_model --max-steps 2",
    '"user/my_model"': '"outputs/repository"',
    "examples/train.py": "{root}/examples/train.py",
    "hub_configs/": "{root}/hub_configs/",
    "{full,without_*}.json": "{{full,without_etf}}.json",
    "--recipe hub_configs/vit_large_patch14_336_paper/recipe_visa.json --root my_visa": (
        "--recipe {root}/moeclip_hf/demo/recipe.json --clip {clip} --data {data} --image-size 56 --max-steps 1"
    ),
    "--base moeclip_hf/demo/recipe.json --seeds 0,1,2": "--base {root}/moeclip_hf/demo/recipe.json --seeds 0",
    "--data outputs/demo/data/train.jsonl": "--clip {clip} --data {data} --image-size 56 --max-steps 1",
    "--test-data outputs/demo/data/test": "--test-data {data}/bolt",
}


@pytest.fixture
def data_folder(tmp_path):
    """Three images of each of two objects in MVTec AD's layout, half of a bright square on one of them masked."""
    rng = np.random.default_rng(0)
    for name in ("bolt", "tile"):
        test, truth = tmp_path / "data" / name / "test", tmp_path / "data" / name / "ground_truth" / "spot"
        for folder in (test / "good", test / "spot", truth):
            folder.mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
            mask = np.zeros((64, 64), dtype=np.uint8)
            mask[16:32, 16:40] = 255
            if index % 2:
                pixels[mask > 0] = 255
                Image.fromarray(mask).save(truth / f"{index:03}_mask.png")
            Image.fromarray(pixels).save(test / ("spot" if index % 2 else "good") / f"{index:03}.png")
    return tmp_path / "data"


@pytest.fixture
def environment(tmp_path):
    """Variables of the snippets' processes: `moeclip` and `python` are those of this interpreter, the Hub is away."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, module in (
        ("moeclip", " -m moeclip_hf.cli"),
        ("accelerate", " -m accelerate.commands.accelerate_cli"),
        ("python", ""),
    ):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(commands), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def prepare(snippet, **folders):
    """The snippet with every stand-in, longest first, so that one may contain another's text."""
    for text in sorted(STAND_INS, key=len, reverse=True):
        snippet = snippet.replace(text, STAND_INS[text].format(**folders))
    return snippet


@pytest.fixture
def benchmarks_folder(tmp_path):
    """One of the paper's benchmarks in miniature."""
    (tmp_path / "benchmarks" / "rsdd").mkdir(parents=True)
    write_miniature(tmp_path / "benchmarks" / "rsdd", "rsdd")
    return tmp_path / "benchmarks"


def test_snippets_run(tiny_clip_folder, data_folder, benchmarks_folder, environment, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    for language, snippet in SNIPPETS:
        snippet = prepare(snippet, clip=tiny_clip_folder, data=data_folder, benchmarks=benchmarks_folder, root=ROOT)
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run([*command, snippet], cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{snippet}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip() or done.stderr.strip(), f"prints nothing:\n{snippet}"
    assert (work / "results.json").exists()
    assert (work / "outputs" / "ablation" / "ablation.csv").exists()


def test_every_stand_in_is_used():
    text = README.read_text()
    for original in STAND_INS:
        assert original in text, f"the README no longer says {original!r}"


def test_results_are_those_of_the_packaged_model():
    """The table's means are those on the card that was written from the run which made the package's model."""
    card = (ROOT / "moeclip_hf" / "demo" / "tiny_moeclip" / "README.md").read_text()
    rows = {
        "trained": "mean, trained",
        "the same model untrained": "mean, same model untrained",
        "untrained, but the CLIP's own projections": "mean, untrained, CLIP's projections",
        "local contrast, without a model": "mean, local-contrast heuristic",
    }
    for row, on_card in rows.items():
        (measured,) = re.findall(rf"^{on_card} +([\d. ]+)$", card, flags=re.MULTILINE)
        assert f"| {row} | {' | '.join(measured.split())} |" in README.read_text()


def test_use_of_a_trained_model_is_short():
    language, snippet = next((language, snippet) for language, snippet in SNIPPETS if language == "python")
    assert "from_pretrained(DEMO_MODEL)" in snippet
    assert len(snippet.splitlines()) < 15


def test_length():
    assert len(README.read_text().splitlines()) <= 195


def test_named_files_exist():
    """Paths in backticks, in the tables and in the text, are those of files and folders."""
    names = re.findall(r"`([\w/*]+(?:\.py|\.txt|/))`", README.read_text())
    assert names
    for name in names:
        assert any(list(base.glob(name)) for base in (ROOT, ROOT / "moeclip_hf")), f"{name} does not exist"
