"""The published recipes are what the code would write, and build the model they describe."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from moeclip_hf import (
    MoECLIPConfig,
    MoECLIPForAnomalyDetection,
    MoECLIPImageProcessor,
    MoECLIPProcessor,
)


HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
CLIP = "openai/clip-vit-large-patch14-336"
PRESETS = {"vit_large_patch14_336_paper": "paper", "vit_large_patch14_336_released": "released"}
# Where a file was written by and which files travel beside it: not part of what it describes.
WRITTEN_BY = {"transformers_version", "auto_map"}


@pytest.fixture(params=PRESETS)
def folder(request):
    return HUB_CONFIGS / request.param


def read(path):
    return json.loads(path.read_text())


def without_traces(values):
    if not isinstance(values, dict):
        return values
    return {name: without_traces(value) for name, value in values.items() if name not in WRITTEN_BY}


def test_every_folder_is_tested():
    assert {path.name for path in HUB_CONFIGS.iterdir() if path.is_dir()} == {*PRESETS, "ablations"}


def test_config_is_what_the_code_writes(folder, tmp_path):
    MoECLIPConfig.from_pretrained(folder).save_pretrained(tmp_path)
    assert without_traces(read(tmp_path / "config.json")) == read(folder / "config.json")


def test_paper_config_is_the_default():
    config = MoECLIPConfig.from_pretrained(HUB_CONFIGS / "vit_large_patch14_336_paper")
    assert config.to_diff_dict() == MoECLIPConfig(base_model_name_or_path=CLIP).to_diff_dict()


def test_released_config_differs_in_what_the_recipe_says():
    paper, released = (read(HUB_CONFIGS / name / "config.json") for name in PRESETS)
    for tower in ("vision_config", "text_config"):
        assert paper[tower].pop("hidden_act") == "quick_gelu"
        assert released[tower].pop("hidden_act") == "gelu"
    assert (paper["moe_lora"].pop("lora_dropout"), released["moe_lora"].pop("lora_dropout")) == (0.05, 0.0)
    for name in ("router_aux_loss_coef", "etf_loss_coef"):
        assert (paper.pop(name), released.pop(name)) == (0.01, 0.0)
    assert paper == released


def test_processor_config_is_what_the_code_writes(folder, tiny_tokenizer, tmp_path):
    config = MoECLIPConfig.from_pretrained(folder)
    image_processor = MoECLIPImageProcessor(size=config.vision_config.image_size)
    MoECLIPProcessor(image_processor, tiny_tokenizer).save_pretrained(tmp_path)
    assert without_traces(read(tmp_path / "processor_config.json")) == read(folder / "processor_config.json")


def test_model_has_the_size_of_the_paper(folder):
    config = MoECLIPConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = MoECLIPForAnomalyDetection(config)
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert sizes["vision_model.embeddings.position_embedding.weight"] == (37 * 37 + 1, 1024)
    adapters = {
        name: shape
        for name, shape in sizes.items()
        if ".moe_lora." in name or not name.startswith(("vision_model.", "text_model."))
    }
    # Experts (router, A, B), projections, image head (norm, depth-wise, point-wise convolution), text adapter.
    experts = 4 * (4 * 1024 + 4 * 8 * 1024 + 4 * 8 * 1024)
    heads = 4 * 768 * 1024 + (2 * 1024 + 3 * 1024 + 768 * 1024) + 768 * 768
    assert sum(map(math.prod, adapters.values())) == experts + heads
    assert round((experts + heads) / 1e6, 1) == 4.8  # as the paper's sizes give


def test_card_names_the_recipe(folder):
    card = (folder / "README.md").read_text()
    front_matter, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, flags=re.DOTALL).groups()
    assert f"base_model: {CLIP}" in front_matter
    assert f"recipe `{PRESETS[folder.name]}`" in text
    assert "recipe.json" in text
