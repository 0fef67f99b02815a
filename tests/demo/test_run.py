"""The demo's run on a few pictures: what it writes, that it repeats, and its command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor, MoECLIPTrainingArguments
from moeclip_hf.cli import main
from moeclip_hf.data import load_anomaly_dataset
from moeclip_hf.demo import DEMO_CLIP, DEMO_MODEL, DEMO_RECIPE
from moeclip_hf.demo import run as demo_run
from moeclip_hf.demo.ablation import VARIANTS, run_demo_ablation
from moeclip_hf.demo.augmentation import DemoAugmentation
from moeclip_hf.demo.benchmark import TEST_CATEGORIES, TRAIN_CATEGORIES, draw_sample
from moeclip_hf.demo.patterns import write_patterns
from moeclip_hf.demo.recipe import DemoRecipe
from moeclip_hf.demo.run import prepare_benchmark, run_demo
from moeclip_hf.demo.samples import CachedSamples
from moeclip_hf.demo.shipping import ship_adapters
from moeclip_hf.demo.table import format_table
from moeclip_hf.evaluation import METRICS
from moeclip_hf.model_card import describe_training
from moeclip_hf.training.recipe import build_model
from moeclip_hf.training.recipe_file import read_recipe
from moeclip_hf.training_record import read_training_record


SMALL = DemoRecipe(
    counts={"train": (1, 1), "test": (1, 1)}, num_patterns=6, image_size=56, num_train_epochs=0.3, warmup_steps=1
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A demo of seconds: its folder, results and lines."""
    folder, lines = tmp_path_factory.mktemp("demo"), []
    return folder, run_demo(folder, recipe=SMALL, progress=False, report=lines.append), lines


def test_run_leaves_results_model_and_sheet(run):
    folder, results, lines = run
    written = json.loads((folder / "results.json").read_text())
    assert set(written) == {"mean", "classes", "meta"}
    assert set(written["classes"]) == {category.name for category in TEST_CATEGORIES}
    for found in (written, *written["meta"]["baselines"].values()):
        assert set(found["mean"]) == set(METRICS)
        assert set(found["classes"]) == set(written["classes"])
        mean = np.mean([values["pixel_auroc"] for values in found["classes"].values()])
        assert found["mean"]["pixel_auroc"] == pytest.approx(mean)
    assert set(written["meta"]["baselines"]) == {"untrained", "clip", "local_contrast"}
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 500
    table = next(line for line in lines if "mean, trained" in line)
    assert f"{100 * results['mean']['image_auroc']:.1f}" in table
    assert "hex nut" in table
    model = MoECLIPForAnomalyDetection.from_pretrained(folder / "model")
    inputs = MoECLIPProcessor.from_pretrained(folder / "model")(images=Image.new("RGB", (9, 9)), object_names="nut")
    assert model(**inputs).anomaly_logits.shape == (1, 7, 7)


def test_run_repeats(run, tmp_path):
    again = run_demo(tmp_path, recipe=SMALL, progress=False)
    assert again["mean"] == run[1]["mean"]
    assert again["classes"] == run[1]["classes"]
    assert again["meta"]["baselines"] == run[1]["meta"]["baselines"]


def test_model_has_its_record_and_its_list(run):
    folder = run[0]
    record = read_training_record(folder / "model")
    listed = load_anomaly_dataset(folder / "data" / "train.jsonl")
    assert record["num_images"] == len(listed) == 2 * len(TRAIN_CATEGORIES) + SMALL.num_patterns
    assert record["class_names"] == list(dict.fromkeys(listed["class_name"]))
    assert not set(record["class_names"]) & {category.name for category in TEST_CATEGORIES}
    trained = load_anomaly_dataset(folder / "data" / "train")
    rows = [row for row in listed if row["class_name"] in trained["class_name"]]
    assert [(row["label"], row["object_name"]) for row in rows] == [
        (row["label"], row["object_name"]) for row in trained
    ]
    assert all((row["mask"] is None) == (row["label"] == 0) for row in listed)


@pytest.mark.parametrize("place", ["train/oak_plank/test/good", "test/hex_nut/test/good", "patterns/twill/test/good"])
def test_other_pictures_in_the_folder_are_not_mixed_in(run, tmp_path, place, monkeypatch):
    shutil.copytree(run[0] / "data", tmp_path / "data")
    (tmp_path / "data" / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (56, 56)).save(tmp_path / "data" / place / "older.png")
    halves = {half: tmp_path / "data" / half for half in ("train", "test")}
    monkeypatch.setattr(demo_run, "write_benchmark", lambda *args, **options: halves)
    monkeypatch.setattr(demo_run, "write_patterns", lambda folder, **options: folder)
    with pytest.raises(ValueError, match=r"data holds \d+ pictures to (train|test) with, but \d+ belong there"):
        prepare_benchmark(tmp_path / "data", SMALL, False, print)


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shipped_run_is_its_model_with_record_and_card(run, tmp_path):
    folder, (target, again) = run[0], (tmp_path / name / "tiny_moeclip" for name in ("once", "again"))
    ship_adapters(folder, target)
    shipping = [sys.executable, "-c", "import sys; from moeclip_hf.demo.shipping import ship_adapters as ship; "]
    shipping[-1] += "ship(*sys.argv[1:])"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    subprocess.run([*shipping, folder, again], check=True, env=environment)
    files = read_files(target)
    assert files == read_files(again)
    assert set(files) == {
        "README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json",
        "tokenizer_config.json", "training.json",
    }  # fmt: skip
    for name, content in files.items():
        assert str(folder).encode() not in content, name
        assert str(Path(DEMO_CLIP).parent).encode() not in content, name

    record = read_training_record(target)
    assert record == read_training_record(folder / "model") | {"clip": "moeclip_hf/demo/tiny_clip"}
    card = (target / "README.md").read_text()
    assert f"| images | {record['num_images']} |" in card
    assert f"`moeclip demo --seed {record['seed']}`" in card
    assert format_table(run[1]) in card

    (target.parent / "tiny_clip").symlink_to(DEMO_CLIP)
    shipped, trained = (MoECLIPForAnomalyDetection.from_pretrained(path) for path in (target, folder / "model"))
    assert all(torch.equal(shipped.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_run_without_a_record_is_not_shipped(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has no training.json: run `moeclip demo` anew"):
        ship_adapters(tmp_path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_packaged_model_has_its_record():
    record = read_training_record(DEMO_MODEL)
    assert record["clip"] == "moeclip_hf/demo/tiny_clip"
    assert record["seed"] == MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL).config.moe_lora["seed"]
    assert describe_training(record, has_recipe=False) in (Path(DEMO_MODEL) / "README.md").read_text()


def test_ablation_summarizes_seeds(tmp_path):
    lines = []
    results = run_demo_ablation(tmp_path, seeds=(1, 2), recipe=SMALL, progress=False, report=lines.append)
    assert set(results["variants"]) == set(VARIANTS)
    for summary in results["variants"].values():
        values = [means["pixel_auroc"] for means in summary["seeds"].values()]
        assert summary["mean"]["pixel_auroc"] == pytest.approx(sum(values) / 2)
    assert "without FOFS" in lines[-2]
    with pytest.raises(ValueError, match="`seeds` \\[\\] must be"):
        run_demo_ablation(tmp_path, seeds=(), recipe=SMALL, progress=False)


def test_variants_differ_in_what_they_say():
    models = {title: build_model(SMALL.get_training(**changes))[0] for title, changes in VARIANTS.items()}
    assert not models["without experts"].moe_lora_layers()
    assert not models["without FOFS"].config.moe_lora["orthogonal_split"]
    training = SMALL.get_training(**VARIANTS["without ETF"]).training_arguments
    assert (training["etf_loss_coef"], SMALL.get_training().training_arguments["etf_loss_coef"]) == (0, 0.01)
    assert models["full"].config.moe_lora["orthogonal_split"]
    assert models["full"].config.vision_config.image_size == SMALL.image_size


def test_recipe_file_says_what_the_method_is():
    """Its model is the default one on the tiny CLIP; the numbers of its training are its own."""
    recipe = read_recipe(DEMO_RECIPE)
    model, _ = build_model(recipe.change({"seed": 0}))
    default = MoECLIPForAnomalyDetection.from_clip(DEMO_CLIP, image_size=recipe.values["image_size"])
    assert model.config.to_dict() == default.config.to_dict()
    args = MoECLIPTrainingArguments(**recipe.training_arguments, use_cpu=True)
    for name in ("router_aux_loss_coef", "etf_loss_coef"):
        assert getattr(args, name) == getattr(default.config, name)
    assert args.lora_dropout == default.config.moe_lora["lora_dropout"]
    assert DemoRecipe().get_training(seed=3).values == {**recipe.values, "seed": 3}


def test_command_line_checks_its_numbers(capsys):
    assert main(["demo", "--seed", "-1"]) == 1
    assert "--seed is -1" in capsys.readouterr().err
    assert main(["demo", "--ablation", "--num-seeds", "0"]) == 1
    assert "--num-seeds is 0" in capsys.readouterr().err
    for ablation in ([], ["--ablation"]):
        assert main(["demo", "--output", __file__, *ablation]) == 1
        assert f"--output {__file__} is a file: name a folder." in capsys.readouterr().err


def test_patterns_repeat_for_any_number_of_workers(tmp_path):
    for name, workers in (("a", 0), ("b", 2)):
        write_patterns(tmp_path / name, count=9, size=56, seed=5, num_workers=workers)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    assert files == sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.png"))
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    pictures = [file for file in files if file.parts[1] == "test"]
    assert len(pictures) == 9
    assert 2 <= sum(file.parts[2] == "good" for file in pictures) < 9


def test_augmentation_is_a_function_of_its_arguments():
    picture = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(0))
    mask = (picture[0] > 0).long()
    augment = DemoAugmentation(3)
    first, again, other = (augment(picture, mask, epoch, 5) for epoch in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == picture.shape
    assert first[1].sum() == mask.sum()


def test_augmentation_moves_the_mask_with_its_picture():
    mask = torch.zeros(8, 8, dtype=torch.int64)
    mask[1, 2] = mask[5, 6] = 1
    for index in range(20):
        picture, moved = DemoAugmentation(0)(3.0 * mask.expand(3, 8, 8).float(), mask, 0, index)
        assert torch.equal((picture.sum(0) - picture.sum(0).median()).abs() > 1e-3, moved > 0)


class _Samples(list):
    object_names, object_ids, class_names = ["nut"], [0, 0], ["nut", "nut"]


def test_cached_samples_are_augmented_by_epoch():
    samples = _Samples([{"pixel_values": index, "mask_labels": 0, "labels": 1} for index in range(2)])
    cached = CachedSamples(samples, lambda pixels, mask, epoch, index: ((pixels, epoch, index), mask))
    assert cached[1]["pixel_values"] == (1, 0, 1)
    cached.set_epoch(4)
    assert cached[1]["pixel_values"] == (1, 4, 1)
    assert len(cached) == 2
    assert cached.object_names == ["nut"]


def test_shipped_adapters_beat_the_baselines():
    """A small slice of the test half: the shipped model's maps find what contrast does not."""
    from moeclip_hf.demo.heuristic import GRIDS, local_contrast
    from moeclip_hf.metrics import PixelMetrics
    from moeclip_hf.processing_moeclip import resize_anomaly_map, smooth_anomaly_logits

    model = MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL).eval()
    processor = MoECLIPProcessor.from_pretrained(DEMO_MODEL)
    trained, contrast = [], {grid_size: [] for grid_size in GRIDS}
    for category in TEST_CATEGORIES[::2]:
        drawn = [draw_sample(category, 7, index, defect) for index, defect in enumerate((None, *category.defects))]
        inputs = processor(images=[image for image, _ in drawn], object_names=category.name.replace("_", " "))
        masks = torch.tensor(np.stack([np.asarray(mask) for _, mask in drawn])) > 0
        with torch.inference_mode():
            maps = smooth_anomaly_logits(model(**inputs).anomaly_logits)
        trained.append(_pixel_auroc(PixelMetrics(aupro=False), resize_anomaly_map(maps, (224, 224)), masks))
        pictures = torch.tensor(np.stack([np.asarray(image) for image, _ in drawn])).permute(0, 3, 1, 2) / 255
        for grid_size in GRIDS:
            maps, _ = local_contrast(pictures, grid_size)
            contrast[grid_size].append(_pixel_auroc(PixelMetrics(aupro=False), maps, masks))
    best = max(np.mean(values) for values in contrast.values())
    assert np.mean(trained) > 0.8
    assert np.mean(trained) > best + 0.1


def _pixel_auroc(metrics, maps, masks):
    metrics.update(maps, masks)
    return metrics.compute()["pixel_auroc"]
