"""Ablations: what is computed, kept, continued and refused."""

import csv
import dataclasses
import json
import math
import statistics
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor, MoECLIPTrainer
from moeclip_hf.data import AnomalyDetectionDataset
from moeclip_hf.evaluation import METRICS, evaluate_model
from moeclip_hf.training import ablation
from moeclip_hf.training.ablation import AblationSetting, run_ablation
from moeclip_hf.training.ablation_table import format_ablation, summarize_ablation, write_csv
from moeclip_hf.training.recipe_file import Recipe
from moeclip_hf.training_record import read_training_record


def draw_pictures(num_pictures, name, seed):
    """Noise of 56 x 56 pixels, a bright square on every second picture."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(num_pictures):
        pixels, mask = rng.integers(80, 120, (56, 56, 3), dtype=np.uint8), np.zeros((56, 56), dtype=np.uint8)
        if index % 2:
            mask[10:30, 20:50] = 255
            pixels[mask > 0] = 250
        rows.append({"image": Image.fromarray(pixels), "mask": Image.fromarray(mask) if index % 2 else None})
        rows[-1] |= {"label": index % 2, "class_name": name, "object_name": name}
    features = datasets.Features(
        {
            "image": datasets.Image(), "mask": datasets.Image(), "label": datasets.Value("int64"),
            "class_name": datasets.Value("string"), "object_name": datasets.Value("string"),
        }
    )  # fmt: skip
    return datasets.Dataset.from_list(rows, features=features)


@pytest.fixture
def setting():
    train_data = draw_pictures(6, "tile", 0)
    return AblationSetting(
        load_training_samples=lambda recipe, processor: AnomalyDetectionDataset(train_data, processor.image_processor),
        test_data=draw_pictures(4, "bolt", 1),
        get_run_arguments=lambda recipe: {"use_cpu": True, "logging_steps": 1},
        description={"data": "tiles", "counts": (6, 4)},
        progress=False,
    )


@pytest.fixture
def variants(tiny_clip_folder):
    full = Recipe({"clip": tiny_clip_folder, "image_size": 56, "max_steps": 3, "moe_lora": {"r": 4}, "seed": 9})
    return {
        "full": full,
        "no experts": full.change({"moe_lora": None}),
        "1 expert": full.change({"moe_lora": {"num_experts": 1, "num_experts_per_tok": 1}}),
    }


class Stop(Exception):
    """Stands for a killed process."""


def read(path):
    return json.loads(Path(path).read_text())


# ---- what is computed ----


def test_runs_are_those_of_the_recipes(variants, setting, tmp_path):
    lines = []
    results = run_ablation(variants, setting, tmp_path, seeds=(3, 4), report=lines.append)
    assert lines[0] == "run 1 of 6: full, seed 3"
    assert lines[5] == "run 6 of 6: 1 expert, seed 4"
    assert set(results["variants"]) == set(variants)
    for title, folder in (("full", "full"), ("no experts", "no_experts")):
        for seed in (3, 4):
            run = tmp_path / "runs" / folder / f"seed_{seed}"
            model = MoECLIPForAnomalyDetection.from_pretrained(run / "model")
            processor = MoECLIPProcessor.from_pretrained(run / "model")
            assert (len(model.moe_lora_layers()) == 0) == (title == "no experts")
            # what the run reports is what its model does
            expected = evaluate_model(model, processor, setting.test_data, progress=False)["mean"]
            assert read(run / "results.json")["mean"] == pytest.approx(expected, abs=1e-6)
            assert {k: results["variants"][title]["seeds"][str(seed)][k] for k in METRICS} == expected
            record = read_training_record(run / "model")
            assert (record["seed"], record["class_names"], record["global_step"]) == (seed, ["tile"], 3)
            assert sorted(path.name for path in run.iterdir()) == ["model", "results.json", "run.json"]
    full = results["variants"]["full"]
    values = [full["seeds"][seed]["pixel_auroc"] for seed in ("3", "4")]
    assert values[0] != values[1]
    assert full["mean"]["pixel_auroc"] == pytest.approx(sum(values) / 2)
    assert full["std"]["pixel_auroc"] == pytest.approx(statistics.stdev(values))
    assert "seed" not in full["recipe"]
    assert read(tmp_path / "ablation.json")["meta"]["seeds"] == [3, 4]


def test_similarity_is_the_last_logged_one(variants, setting, tmp_path, monkeypatch):
    logged = []

    class KeepLog(MoECLIPTrainer):
        def train(self, *args, **kwargs):
            result = super().train(*args, **kwargs)
            logged.append([line for line in self.state.log_history if "loss" in line][-1])
            return result

    monkeypatch.setattr(ablation, "MoECLIPTrainer", KeepLog)
    results = run_ablation(variants, setting, tmp_path, seeds=(3,))["variants"]
    expected = np.mean([logged[0][f"expert_similarity/layer_{layer}"] for layer in range(4)])
    assert results["full"]["mean"]["expert_similarity"] == pytest.approx(expected)
    for title in ("no experts", "1 expert"):
        assert math.isnan(results[title]["mean"]["expert_similarity"])


def test_similarity_of_a_run_shorter_than_a_log_interval(variants, setting, tmp_path):
    """It is that of the last step, as if every step were logged."""
    one = {"full": variants["full"]}
    expected = run_ablation(one, setting, tmp_path / "logged", seeds=(3,))["variants"]["full"]
    short = dataclasses.replace(setting, get_run_arguments=lambda recipe: {"use_cpu": True, "logging_steps": 50})
    found = run_ablation(one, short, tmp_path / "short", seeds=(3,))["variants"]["full"]
    assert found["mean"]["expert_similarity"] == expected["mean"]["expert_similarity"]


def test_equal_recipes_share_their_runs(variants, setting, tmp_path):
    twins = {"full": variants["full"], "4 experts": variants["full"].change({"seed": 9})}
    lines = []
    results = run_ablation(twins, setting, tmp_path, seeds=(3,), report=lines.append)
    assert lines[:2] == ["run 1 of 2: full, seed 3", "run 2 of 2: 4 experts, seed 3: finished before, kept"]
    assert results["variants"]["full"]["mean"] == results["variants"]["4 experts"]["mean"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["full"]


# ---- going on ----


def test_interrupted_ablation_goes_on(variants, setting, tmp_path, monkeypatch):
    """Stopped in the middle of the second run's training, between two checkpoints: the same table as without."""
    two = {title: variants[title].change({"num_train_epochs": 2}) for title in ("full", "no experts")}
    run_ablation(two, setting, tmp_path / "whole", seeds=(3,))

    step, trained = MoECLIPTrainer.training_step, []

    def count_and_stop(self, *args, **kwargs):
        trained.append(self.state.global_step)
        if len(trained) == 11:  # two epochs of three steps, one epoch, and in the middle of the next
            raise Stop
        return step(self, *args, **kwargs)

    monkeypatch.setattr(MoECLIPTrainer, "training_step", count_and_stop)
    with pytest.raises(Stop):
        run_ablation(two, setting, tmp_path / "stopped", seeds=(3,))
    assert list(read(tmp_path / "stopped" / "ablation.json")["variants"]) == ["full"]
    lines = []
    run_ablation(two, setting, tmp_path / "stopped", seeds=(3,), report=lines.append)
    assert lines[:2] == ["run 1 of 2: full, seed 3: finished before, kept", "run 2 of 2: no experts, seed 3"]
    assert trained[11:] == [3, 4, 5]  # from the checkpoint of the first epoch
    whole, stopped = (read(tmp_path / name / "ablation.json") for name in ("whole", "stopped"))
    assert whole == stopped
    for name in ("full", "no_experts"):
        first, second = (
            read(tmp_path / root / "runs" / name / "seed_3" / "results.json") for root in ("whole", "stopped")
        )
        assert (first["mean"], first["classes"]) == (second["mean"], second["classes"])
        for key in ("recipe", "expert_similarity", "seed"):
            assert first["meta"][key] == second["meta"][key]


def test_more_seeds_are_added(variants, setting, tmp_path, monkeypatch):
    one = {"full": variants["full"]}
    first = run_ablation(one, setting, tmp_path, seeds=(3,))
    both = run_ablation(one, setting, tmp_path, seeds=(3, 4))
    assert both["variants"]["full"]["seeds"]["3"] == first["variants"]["full"]["seeds"]["3"]
    assert len(both["variants"]["full"]["seeds"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "a run with `learning_rate` None, this one has 0.5"),
        ({"moe_lora": {"r": 2}}, "a run with `moe_lora` {'r': 4}, this one has {'r': 2}"),
    ],
)
def test_run_of_another_recipe_is_not_taken_over(variants, setting, tmp_path, change, message):
    run_ablation({"full": variants["full"]}, setting, tmp_path, seeds=(3,))
    with pytest.raises(ValueError, match="choose another --output, or delete that folder") as error:
        run_ablation({"full": variants["full"].change(change)}, setting, tmp_path, seeds=(3,))
    assert message in str(error.value)


def test_run_on_another_clip_or_data_is_not_taken_over(variants, setting, tmp_path, tiny_clip, tiny_clip_folder):
    one = {"full": variants["full"]}
    run_ablation(one, setting, tmp_path, seeds=(3,))
    setting.description["data"] = "bricks"
    with pytest.raises(ValueError, match="a run with `data` 'tiles', this one has 'bricks'"):
        run_ablation(one, setting, tmp_path, seeds=(3,))
    setting.description["data"] = "tiles"
    with torch.no_grad():
        tiny_clip.logit_scale.add_(1)
    tiny_clip.save_pretrained(tiny_clip_folder)
    with pytest.raises(ValueError, match="a run with `clip_sha256`"):
        run_ablation(one, setting, tmp_path, seeds=(3,))


# ---- what is refused before the first run ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moe_lora": {"layers_to_transform": [7]}}, "late: `layers_to_transform` holds 7"),
        ({"moe_lora": {"num_experts_per_tok": 9}}, "late: `num_experts_per_tok` \\(9\\) must be between"),
        ({"image_size": 50}, "late: `image_size` \\(50\\) must be a multiple"),
        ({"learning_rate": -1.0}, "late: `learning_rate` \\(-1.0\\) must be a finite number above 0"),
        ({"preset": "fast"}, "late: `preset` \\('fast'\\) must be one of"),
    ],
)
def test_wrong_recipe_fails_at_once(variants, setting, tmp_path, change, message):
    wrong = {"full": variants["full"], "late": variants["full"].change(change)}
    with pytest.raises(ValueError, match=message):
        run_ablation(wrong, setting, tmp_path, seeds=(3,))
    assert not list(tmp_path.glob("runs*"))


def test_wrong_lists(variants, setting, tmp_path):
    with pytest.raises(ValueError, match="`variants` is empty"):
        run_ablation({}, setting, tmp_path, seeds=(1,))
    for seeds in ((), (1, 1), (-1, 2)):
        with pytest.raises(ValueError, match="`seeds` .* must be different whole numbers"):
            run_ablation(variants, setting, tmp_path, seeds=seeds)
    with pytest.raises(ValueError, match="'a b' and 'a/b' would share a folder"):
        run_ablation({"a b": variants["full"], "a/b": variants["no experts"]}, setting, tmp_path, seeds=(1,))
    for title in ("", ".."):
        with pytest.raises(ValueError, match=f"`variants` has the title '{title}', which names no folder"):
            run_ablation({title: variants["full"]}, setting, tmp_path, seeds=(1,))
    with pytest.raises(ValueError, match="bare: the recipe names no `clip`"):
        run_ablation({"bare": Recipe()}, setting, tmp_path, seeds=(1,))


# ---- the table ----


def make_results(image_auroc, similarity, pixel_ap=0.5):
    means = {"image_auroc": image_auroc, "image_ap": 0.25, "pixel_auroc": 0.75, "pixel_ap": pixel_ap}
    undefined = {metric: "no masks" for metric, value in means.items() if value is None}
    reasons = {"mean": undefined, "classes": {"bolt": undefined} if undefined else {}}
    return {"mean": means, "meta": {"expert_similarity": similarity, "recipe": {"seed": 1}, "reasons": reasons}}


def test_table_and_csv(tmp_path):
    found = {
        "full": {1: make_results(0.5, 0.1), 2: make_results(0.6, 0.3)},
        "no experts": {1: make_results(0.25, None, pixel_ap=None)},
    }
    results = summarize_ablation(found)
    table = format_ablation(results).splitlines()
    assert table[0].split() == "mean over 2 seeds image AUROC image AP pixel AUROC pixel AP similarity".split()
    assert table[2].split("  ")[0] == "full"
    assert "55.0 ± 7.1" in table[2]  # the sample's deviation of 50 and 60
    assert table[2].endswith("0.20 ± 0.14")
    assert table[3].split() == ["no", "experts", "25.0", "25.0", "75.0", "-", "-"]
    assert len({len(line) for line in table[:4]}) == 1
    assert table[4:] == [
        "-  no experts: pixel AP undefined, no masks",
        "-  no experts: similarity undefined, fewer than two experts",
    ]
    write_csv(results, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["variant"] for row in rows] == ["full", "no experts"]
    assert float(rows[0]["image_auroc_mean"]) == pytest.approx(0.55)
    assert float(rows[0]["image_auroc_std"]) == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert (rows[1]["pixel_ap_mean"], rows[1]["image_auroc_std"], rows[1]["num_seeds"]) == ("", "", "1")
