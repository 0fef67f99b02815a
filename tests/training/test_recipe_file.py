"""Recipe files: how bases and changes add up, what is refused, and that the published ones build their models."""

import json
import re
from pathlib import Path

import pytest
from transformers import CLIPConfig

from moeclip_hf import MoECLIPConfig, MoECLIPTrainingArguments
from moeclip_hf.backbone_moeclip import config_on_clip
from moeclip_hf.training.recipe import get_model_arguments
from moeclip_hf.training.recipe_file import Recipe, parse_changes, read_recipe, read_variant, write_recipe


HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"
# The demo's recipe lies with the demo, whose own tests read it, and its CLIP is a folder.
MODEL_RECIPES = sorted(path for path in HUB_CONFIGS.glob("*/recipe*.json") if path.parent.name != "tiny_demo")
ABLATIONS = sorted((HUB_CONFIGS / "ablations").rglob("*.json"))
PAPER = HUB_CONFIGS / "vit_large_patch14_336_paper"


def write(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


# ---- how values add up ----


def test_file_counts_more_than_its_base(tmp_path):
    write(tmp_path / "a.json", seed=1, learning_rate=0.1, moe_lora={"r": 4, "num_experts": 2})
    write(tmp_path / "b.json", base="a.json", seed=2, title="b")
    recipe = read_recipe(write(tmp_path / "c" / "c_d.json", base="../b.json", moe_lora={"r": 8}))
    assert recipe.values == {"seed": 2, "learning_rate": 0.1, "moe_lora": {"r": 8, "num_experts": 2}}
    assert (recipe.name, recipe.title) == ("c/c_d", "c d")
    assert read_recipe(tmp_path / "b.json").title == "b"


def test_no_experts_and_experts_again():
    none = Recipe({"moe_lora": {"r": 4}}).change({"moe_lora": None})
    assert none.values == {"moe_lora": None}
    assert none.change({"moe_lora": {"r": 2}}).values == {"moe_lora": {"r": 2}}


def test_another_preset_brings_its_own_values():
    recipe = Recipe({"preset": "paper", "learning_rate": 5e-4, "lora_dropout": 0.05, "hidden_act": None, "seed": 3})
    assert recipe.change({"preset": "released"}).values == {"preset": "released", "seed": 3}
    assert recipe.change({"preset": "released", "learning_rate": 1.0}).values["learning_rate"] == 1.0
    assert recipe.change({"preset": "paper"}) == recipe


def test_epochs_replace_steps():
    recipe = Recipe({"max_steps": 100})
    assert recipe.change({"num_train_epochs": 2.0}).values == {"num_train_epochs": 2.0}
    assert recipe.change({"num_train_epochs": 2.0, "max_steps": 5}).values["max_steps"] == 5
    assert recipe.change({"seed": 1}).values == {"max_steps": 100, "seed": 1}


def test_change_leaves_the_recipe(tmp_path):
    recipe = Recipe({"moe_lora": {"r": 4}, "seed": 1})
    recipe.change({"moe_lora": {"num_experts": 8}, "seed": 2, "preset": "released"})
    assert recipe == Recipe({"moe_lora": {"r": 4}, "seed": 1})


def test_paths_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    write(tmp_path / "models" / "base.json", clip="../clips/tiny", data="./data")
    write(tmp_path / "runs" / "short.json", base="../models/base.json")
    monkeypatch.chdir(tmp_path)
    values = read_recipe("runs/short.json").values
    assert values == {"clip": "clips/tiny", "data": "models/data"}
    write(tmp_path / "plain.json", clip="openai/clip", data="visa")
    assert read_recipe("plain.json").values == {"clip": "openai/clip", "data": "visa"}


def test_written_recipe_is_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"clip": "../clips/tiny", "data": "visa", "seed": 3, "moe_lora": {"r": 4}}
    write_recipe("model/recipe.json", Recipe(values, title="mine"))
    recipe = read_recipe("model/recipe.json")
    assert recipe.values == values | {"clip": str(tmp_path.parent / "clips" / "tiny")}
    assert recipe.title == "mine"
    write_recipe("model/recipe.json", Recipe({"moe_lora": None, "data": "my_data"}))
    assert read_recipe("model/recipe.json") == Recipe({"moe_lora": None, "data": "my_data"}, "model/recipe", "recipe")


def test_changes_reach_what_a_variant_shares(tmp_path):
    write(tmp_path / "base.json", etf_loss_coef=0.01, seed=1, learning_rate=0.1)
    path = write(tmp_path / "variant.json", base="base.json", etf_loss_coef=0.0)
    variant = read_variant(path, changes={"etf_loss_coef": 0.5, "seed": 2})
    assert variant.values == {"etf_loss_coef": 0.0, "seed": 2, "learning_rate": 0.1}
    other = read_variant(path, base=Recipe({"learning_rate": 9.0}), changes={"seed": 2})
    assert other.values == {"etf_loss_coef": 0.0, "seed": 2, "learning_rate": 9.0}
    assert other.name.endswith("/variant")
    alone = read_variant(tmp_path / "base.json", changes={"etf_loss_coef": 0.5})
    assert alone.values["etf_loss_coef"] == 0.5
    with pytest.raises(ValueError, match="base.json names no `base` that another could replace"):
        read_variant(tmp_path / "base.json", base=Recipe())


def test_changes_on_a_command_line():
    pairs = ["etf_loss_coef=0", "moe_lora.r=4", "moe_lora.num_experts=8", "use_image_head=false", "data=visa"]
    expected = {"etf_loss_coef": 0, "moe_lora": {"r": 4, "num_experts": 8}, "use_image_head": False, "data": "visa"}
    assert parse_changes(pairs, "--set") == expected
    assert parse_changes(["moe_lora=null", "lr_milestones=[1, 2]"], "--set") == {
        "moe_lora": None, "lr_milestones": [1, 2],
    }  # fmt: skip


def test_large_models_recipe_on_another_tower():
    """Layers are those of the large tower; null gives them back to the CLIP."""
    recipe = read_recipe(PAPER / "recipe.json").change({"image_size": 224})
    tower = CLIPConfig(vision_config={"num_hidden_layers": 12, "patch_size": 16, "image_size": 224})
    with pytest.raises(ValueError, match="`feature_layers` holds 17"):
        config_on_clip(tower, **get_model_arguments(recipe))
    changes = parse_changes(["feature_layers=null", "moe_lora.layers_to_transform=null"], "--set")
    config = config_on_clip(tower, **get_model_arguments(recipe.change(changes)))
    assert config.feature_layers == (2, 5, 8, 11)
    assert config.moe_lora["layers_to_transform"] == [2, 5, 8, 11]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1}, "has the unknown key 'lerning_rate'. Known keys: clip, data"),
        ({"moe_lora": {"rank": 4}}, "has the unknown key 'moe_lora.rank'. Known keys: r, lora_alpha"),
        ({"moe_lora": {"lora_dropout": 0.1}}, "has the unknown key 'moe_lora.lora_dropout'"),
        ({"output_dir": "x"}, "has the unknown key 'output_dir'"),
        ({"learning_rate": "fast"}, 'has `learning_rate` "fast", which must be a number or null.'),
        ({"seed": 1.5}, "has `seed` 1.5, which must be a whole number."),
        ({"seed": True}, "has `seed` true, which must be a whole number."),
        ({"use_image_head": 0}, "has `use_image_head` 0, which must be true or false."),
        ({"num_train_epochs": None}, "has `num_train_epochs` null, which must be a number."),
        (
            {"feature_layers": [1, "2"]},
            'has `feature_layers` [1, "2"], which must be a list of whole numbers or null.',
        ),
        ({"moe_lora": 4}, "has `moe_lora` 4, which must be an object, {...} or null."),
        ({"base": 3}, "has `base` 3, which must be the path of a recipe file."),
        ({"title": 3}, "has `title` 3, which must be a text."),
    ],
)
def test_wrong_files(tmp_path, values, message):
    path = write(tmp_path / "wrong.json", **values)
    with pytest.raises(ValueError, match="wrong.json ") as error:
        read_recipe(path)
    assert message in str(error.value)


def test_missing_and_circular_bases(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_recipe(tmp_path / "nowhere.json")
    path = write(tmp_path / "a.json", base="b.json")
    with pytest.raises(FileNotFoundError, match="a.json names the base 'b.json', but there is no file"):
        read_recipe(path)
    write(tmp_path / "b.json", base="a.json")
    with pytest.raises(ValueError, match="a.json: its bases form a circle, .*a.json -> .*b.json -> .*a.json"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("etf_loss_coef", "`--set` (etf_loss_coef) must be KEY=VALUE, e.g. etf_loss_coef=0."),
        ("etf=0", "`--set` has the unknown key 'etf'"),
        ("moe_lora.k=2", "`--set` has the unknown key 'moe_lora.k'"),
        ("seed.x=2", "which must be a whole number"),
        ("use_image_head=no", '`--set` has `use_image_head` "no", which must be true or false.'),
    ],
)
def test_wrong_changes(pair, message):
    with pytest.raises(ValueError, match="`--set`") as error:
        parse_changes([pair], "--set")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["moe_lora=5", "moe_lora.r=4"], "has `moe_lora` 5, which must be an object"),
        (["preset=paper", "preset.r=4"], 'has `preset` {"r": 4}, which must be a text'),
    ],
)
def test_part_of_what_has_no_parts(pairs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_changes(pairs, "--set")


# ---- the published recipes ----


def build_config(recipe, folder):
    """The configuration of a recipe's model, with the towers that the folder's own configuration describes."""
    stored = MoECLIPConfig.from_pretrained(folder)
    towers = {name: getattr(stored, name).to_dict() for name in ("vision_config", "text_config")}
    if recipe.model_fields.get("hidden_act") is None:
        # the CLIP's own, which every CLIP here shares
        assert {tower["hidden_act"] for tower in towers.values()} <= {"quick_gelu", "gelu"}
    clip_config = CLIPConfig(**towers, projection_dim=stored.projection_dim)
    return stored, config_on_clip(clip_config, **get_model_arguments(recipe))


@pytest.mark.parametrize("path", MODEL_RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_model_recipe_is_complete_and_builds_the_folders_model(path):
    recipe = read_recipe(path)
    stored, config = build_config(recipe, path.parent)
    assert recipe.values["clip"] == stored.base_model_name_or_path
    for name in ("image_size", "hidden_act", "patch_size"):
        assert getattr(config.vision_config, name) == getattr(stored.vision_config, name)
    for name in recipe.model_fields.keys() - {"hidden_act", "moe_lora"}:
        assert getattr(config, name) == getattr(stored, name), name
    args = MoECLIPTrainingArguments(**recipe.training_arguments, use_cpu=True)
    assert (args.router_aux_loss_coef, args.etf_loss_coef) == (stored.router_aux_loss_coef, stored.etf_loss_coef)
    experts = {**config.moe_lora, "lora_dropout": args.lora_dropout, "seed": 0}
    assert experts == stored.moe_lora
    # every number is named: what the preset would choose is no part of the recipe
    plain = MoECLIPTrainingArguments(preset=recipe.preset, use_cpu=True)
    for name in ("learning_rate", "max_grad_norm", "num_train_epochs", "per_device_train_batch_size", "seed"):
        assert recipe.values[name] == getattr(plain, name), name
    for name in ("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_milestones", "lr_gamma"):
        assert recipe.values[name] == getattr(plain, name), name


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODEL_RECIPES}), ids=lambda folder: folder.name)
def test_training_matrix_is_the_papers(folder):
    """VisA for all other benchmarks, MVTec for VisA; the two runs differ in nothing else."""
    visa, mvtec, neither = (read_recipe(folder / f"recipe{end}.json").values for end in ("_visa", "_mvtec", ""))
    assert (visa.pop("data"), mvtec.pop("data")) == ("visa", "mvtec")
    assert visa == mvtec == neither


def test_presets_of_the_large_model():
    released = read_recipe(HUB_CONFIGS / "vit_large_patch14_336_released" / "recipe_visa.json").values
    paper = read_recipe(PAPER / "recipe_visa.json").values
    differ = {name: (paper[name], released[name]) for name in paper if paper[name] != released[name]}
    assert differ == {
        "preset": ("paper", "released"), "learning_rate": (5e-4, 5e-5), "max_grad_norm": (1.0, 0.0),
        "router_aux_loss_coef": (0.01, 0.0), "etf_loss_coef": (0.01, 0.0), "lora_dropout": (0.05, 0.0),
        "hidden_act": (None, "gelu"),
    }  # fmt: skip


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_ablation_builds_a_model(path):
    recipe = read_recipe(path)
    assert recipe.values["data"] == "visa"
    build_config(recipe, PAPER)
    MoECLIPTrainingArguments(**recipe.training_arguments, use_cpu=True)


def test_ablations_cover_what_the_method_has():
    recipes = {path.stem: read_recipe(path).values for path in ABLATIONS}
    full = recipes["full"]
    assert full == read_recipe(PAPER / "recipe_visa.json").values
    differing = {
        name: {key: value for key, value in values.items() if value != full[key]} for name, values in recipes.items()
    }
    dense = {**full["moe_lora"], "orthogonal_split": False}
    expected = {
        "without_experts": {"moe_lora": None},
        "without_fofs": {"moe_lora": dense},
        "without_etf": {"etf_loss_coef": 0.0},
        "without_fofs_and_etf": {"moe_lora": dense, "etf_loss_coef": 0.0},
        "without_balance": {"router_aux_loss_coef": 0.0},
        "without_paa": {"patch_average_kernel_sizes": [1]},
        "without_image_head": {"use_image_head": False},
    }
    assert {name: differing[name] for name in expected} == expected
    numbers = {name: values["moe_lora"] for name, values in recipes.items() if values["moe_lora"] is not None}
    for count in range(1, 9):
        experts = numbers[f"experts_{count}"]
        assert (experts["num_experts"], experts["num_experts_per_tok"]) == (count, min(count, 2))
    for count in range(1, 5):
        assert numbers[f"experts_per_token_{count}"]["num_experts_per_tok"] == count
    ranks = {experts["r"]: experts["lora_alpha"] / experts["r"] for experts in numbers.values()}
    assert ranks == {2: 2, 4: 2, 8: 2, 16: 2, 32: 2}
    layers = {tuple(experts["layers_to_transform"]) for experts in numbers.values()}
    assert layers == {(5, 11, 17, 23), (23,), (17, 23), tuple(range(24))}
    assert {tuple(values["feature_layers"]) for values in recipes.values()} == {(5, 11, 17, 23), (23,)}
    titles = [read_recipe(path).title for path in ABLATIONS]
    assert len(set(titles)) == len(titles)
