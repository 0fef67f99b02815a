import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moeclip_hf.cli import main
from moeclip_hf.training_record import read_training_record


ABLATIONS = Path(__file__).parents[2] / "hub_configs" / "ablations"


def write_data(folder, name, num_pictures=4):
    """One class in MVTec layout, a bright square on every second picture."""
    rng = np.random.default_rng(0)
    for index in range(num_pictures):
        pixels, mask = rng.integers(80, 120, (56, 56, 3), dtype=np.uint8), np.zeros((56, 56), dtype=np.uint8)
        kind = "spot" if index % 2 else "good"
        (folder / name / "test" / kind).mkdir(parents=True, exist_ok=True)
        if index % 2:
            mask[10:30, 20:50] = 255
            pixels[mask > 0] = 250
            (folder / name / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / name / "ground_truth" / kind / f"{index}_mask.png")
        Image.fromarray(pixels).save(folder / name / "test" / kind / f"{index}.png")
    return str(folder)


def write_recipe(path, **values):
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def ablate(tiny_clip_folder, tmp_path):
    """Runs `moeclip ablate` for three steps a run; `--output` is `out`."""
    train, test = write_data(tmp_path / "train", "tile"), write_data(tmp_path / "test", "bolt")

    def run(*options, data=train, test_data=test, clip=tiny_clip_folder):
        sources = ["--clip", clip] if clip else []
        sources += ["--data", data] if data else []
        return main(
            ["ablate", *options, *sources, "--test-data", test_data, "--output", str(tmp_path / "out"), "--cpu"]
        )

    return run


SMALL = ("--image-size", "56", "--max-steps", "3", "--logging-steps", "1")


def test_published_recipes_on_own_data(ablate, tmp_path, capsys):
    recipes = [str(ABLATIONS / f"{name}.json") for name in ("full", "without_etf", "experts_2", "experts_4")]
    base = write_recipe(tmp_path / "small.json", learning_rate=0.01, per_device_train_batch_size=1)
    assert ablate("--recipes", *recipes, "--base", base, "--seeds", "5,6", *SMALL) == 0
    out = capsys.readouterr().out
    assert "run 1 of 8: full, seed 5" in out
    assert re.search(r"^without ETF( +\d+\.\d ± \d+\.\d){4} +-?\d\.\d\d ± \d\.\d\d$", out, flags=re.MULTILINE)
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert list(found["variants"]) == ["full", "without ETF", "2 experts", "4 experts"]
    recipe = found["variants"]["without ETF"]["recipe"]
    # the base's numbers, the command line's, and the file's own
    assert (recipe["learning_rate"], recipe["max_steps"], recipe["etf_loss_coef"]) == (0.01, 3, 0.0)
    assert found["variants"]["2 experts"]["recipe"]["moe_lora"] == {"num_experts": 2}
    assert found["meta"]["test_data"].endswith("test")
    rows = list(csv.DictReader((tmp_path / "out" / "ablation.csv").open()))
    assert [(row["variant"], row["num_seeds"]) for row in rows][:2] == [("full", "2"), ("without ETF", "2")]
    record = read_training_record(tmp_path / "out" / "runs" / "without_ETF" / "seed_5" / "model")
    assert (record["recipe"], record["batch_size"], record["seed"]) == ("ablations/without_etf", 1, 5)
    assert ablate("--recipes", *recipes, "--base", base, "--seeds", "5,6", *SMALL) == 0
    assert capsys.readouterr().out.count("finished before, kept") == 8


def test_variants_on_the_command_line(ablate, tmp_path):
    base = write_recipe(tmp_path / "base.json", learning_rate=0.01, moe_lora={"r": 4})
    variants = ["--variant", "plain", "--variant", "K = 2", "moe_lora.num_experts=2", "learning_rate=0.02"]
    assert ablate("--base", base, *variants, "--seeds", "7", *SMALL, "--set", "lora_dropout=0.5") == 0
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())["variants"]
    plain, changed = found["plain"]["recipe"], found["K = 2"]["recipe"]
    assert (plain["learning_rate"], plain["moe_lora"], plain["lora_dropout"]) == (0.01, {"r": 4}, 0.5)
    assert (changed["learning_rate"], changed["moe_lora"]) == (0.02, {"r": 4, "num_experts": 2})
    assert found["plain"]["std"]["pixel_auroc"] is None  # one seed has no deviation


def test_recipes_may_name_clip_and_data(ablate, tiny_clip_folder, tmp_path):
    base = write_recipe(tmp_path / "base.json", clip=tiny_clip_folder, data="./train", max_steps=1, image_size=56)
    recipe = write_recipe(tmp_path / "other.json", base="base.json", title="other", use_image_head=False)
    assert ablate("--recipes", base, recipe, "--seeds", "1", clip=None, data=None) == 0
    record = read_training_record(tmp_path / "out" / "runs" / "other" / "seed_1" / "model")
    assert record["data"] == str(tmp_path / "train")
    config = json.loads((tmp_path / "out" / "runs" / "other" / "seed_1" / "model" / "config.json").read_text())
    assert config["use_image_head"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: --recipes or --variant"),
        (["--variant", "a", "--seeds", "1,x"], "argument --seeds: '1,x' is no list of whole numbers such as 0,1,2"),
    ],
)
def test_wrong_usage(ablate, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        ablate(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_clip_is_wrong_usage(ablate, capsys):
    with pytest.raises(SystemExit) as stopped:
        ablate("--variant", "a", clip=None)
    assert stopped.value.code == 2
    assert "required, here or in a recipe: --clip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipes", "nowhere.json"], "nowhere.json: No such file or directory"),
        (["--variant", "a", "--variant", "a", "seed=2"], "Two variants are called 'a': give one another title."),
        (["--variant", "a", "etf=0"], "`--variant` has the unknown key 'etf'"),
        (["--variant", "a", "moe_lora.num_experts_per_tok=9"], "a: `num_experts_per_tok` (9) must be between 1 and"),
        (["--variant", "a", "--precision", "fp16"], "`--precision fp16` needs a GPU"),
        (["--variant", "a", "--variant", "b", "data=visa"], "different training data"),
        (["--variant", "a", "--seeds", "1,1"], "`seeds` [1, 1] must be different whole numbers"),
    ],
)
def test_one_line_errors(ablate, capsys, options, message):
    assert ablate(*options) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("moeclip: error:")] == lines[-1:]
    assert message in lines[-1]


def test_test_data_must_be_others(ablate, tmp_path, capsys):
    assert ablate("--variant", "a", test_data=str(tmp_path / "train") + "/") == 1
    assert "must not be the training data" in capsys.readouterr().err
