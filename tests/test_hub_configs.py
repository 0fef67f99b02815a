"""The published configurations are what the code writes, and build the models they describe."""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel

from moeclip_hf import MoECLIPConfig, MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.demo import DEMO_CLIP, DEMO_MODEL, DEMO_RECIPE
from moeclip_hf.model_card import LIMITS
from moeclip_hf.training.recipe_file import read_recipe
from moeclip_hf.training_record import read_training_record


HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
LARGE = "openai/clip-vit-large-patch14-336"
# The CLIP, the side of the patch grid, and the CLIP's number of parameters in millions, as it is published.
MODELS = {
    "vit_large_patch14_336_paper": (LARGE, 37, 427.9),
    "vit_large_patch14_336_released": (LARGE, 37, 427.9),
    "vit_base_patch16": ("openai/clip-vit-base-patch16", 32, 149.6),
    "vit_base_patch32": ("openai/clip-vit-base-patch32", 16, 151.3),
    "vit_huge_patch14": ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 37, 986.1),
    "tiny_demo": (DEMO_CLIP, 21, 3.65),
}
NATIVE_SIZES = {LARGE: 336, DEMO_CLIP: 168}
# Where a file was written by and which files travel beside it: not part of what it describes.
WRITTEN_BY = {"transformers_version", "auto_map", "custom_pipelines"}


def load_script():
    spec = importlib.util.spec_from_file_location("write_hub_configs", HUB_CONFIGS / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


@pytest.fixture(params=MODELS)
def folder(request):
    return HUB_CONFIGS / request.param


def read(path):
    return json.loads(path.read_text())


def without_traces(values):
    if not isinstance(values, dict):
        return values
    return {name: without_traces(value) for name, value in values.items() if name not in WRITTEN_BY}


def meta_shapes(build):
    with torch.device("meta"):
        model = build()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_every_folder_is_tested():
    folders = {path.name for path in HUB_CONFIGS.iterdir() if (path / "config.json").is_file()}
    assert folders == set(MODELS) == set(SCRIPT.MODELS)


def test_files_are_what_the_script_writes(folder, tmp_path):
    SCRIPT.write_model(folder.name, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "processor_config.json", "README.md"}
    for path in tmp_path.iterdir():
        assert path.read_text() == (folder / path.name).read_text(), f"run `python hub_configs/write.py`: {path.name}"


def test_config_is_what_the_model_writes(folder, tmp_path):
    MoECLIPConfig.from_pretrained(folder).save_pretrained(tmp_path)
    assert without_traces(read(tmp_path / "config.json")) == read(folder / "config.json")


def test_processor_config_is_what_the_processor_writes(folder, tiny_tokenizer, tmp_path):
    config = MoECLIPConfig.from_pretrained(folder)
    image_processor = MoECLIPImageProcessor(size=config.vision_config.image_size)
    MoECLIPProcessor(image_processor, tiny_tokenizer).save_pretrained(tmp_path)
    assert without_traces(read(tmp_path / "processor_config.json")) == read(folder / "processor_config.json")


def test_towers_are_the_clips(folder):
    """Every tensor of the CLIP's towers is there, of its shape but for the position embeddings of another grid."""
    clip, grid_size, millions = MODELS[folder.name]
    clip_config = SCRIPT.read_clip_config(clip)
    clip_config.vision_config.image_size = NATIVE_SIZES.get(clip, 224)
    of_clip = meta_shapes(lambda: CLIPModel(clip_config))
    assert sum(map(math.prod, of_clip.values())) / 1e6 == pytest.approx(millions, abs=0.05)
    towers = {name: shape for name, shape in of_clip.items() if name.startswith(("vision_model.", "text_model."))}
    positions = "vision_model.embeddings.position_embedding.weight"
    towers[positions] = (1 + grid_size**2, towers[positions][1])

    config = MoECLIPConfig.from_pretrained(folder)
    shapes = meta_shapes(lambda: MoECLIPForAnomalyDetection(config))
    assert {name: shape for name, shape in shapes.items() if name in towers} == towers
    others = shapes.keys() - towers.keys()
    assert all(".moe_lora." in name or not name.startswith(("vision_model.", "text_model.")) for name in others)
    assert config.vision_config.hidden_act == config.text_config.hidden_act
    assert config.base_model_name_or_path == (None if clip == DEMO_CLIP else clip)


def test_adapters(folder):
    config = MoECLIPConfig.from_pretrained(folder)
    shapes = meta_shapes(lambda: MoECLIPForAnomalyDetection(config))
    adapters = {
        name: shape
        for name, shape in shapes.items()
        if ".moe_lora." in name or not name.startswith(("vision_model.", "text_model."))
    }
    # Experts (router, A, B), projections, image head (norm, depth-wise, point-wise convolution), text adapter.
    vision, text, joint = config.vision_config.hidden_size, config.text_config.hidden_size, config.projection_dim
    experts = 4 * (4 * vision + 4 * 8 * vision + 4 * 8 * vision)
    heads = 4 * joint * vision + (2 * vision + 3 * vision + joint * vision) + joint * text
    assert sum(map(math.prod, adapters.values())) == experts + heads
    quarters = [math.ceil(config.vision_config.num_hidden_layers * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
    assert list(config.feature_layers) == config.moe_lora["layers_to_transform"] == quarters


def test_adapters_have_the_papers_size():
    config = MoECLIPConfig.from_pretrained(HUB_CONFIGS / "vit_large_patch14_336_paper")
    shapes = meta_shapes(lambda: MoECLIPForAnomalyDetection(config))
    total = sum(map(math.prod, shapes.values()))
    towers = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name.startswith(("vision_model.", "text_model.")) and ".moe_lora." not in name
    )
    assert round((total - towers) / 1e6, 1) == 4.8


def test_paper_config_is_the_default():
    config = MoECLIPConfig.from_pretrained(HUB_CONFIGS / "vit_large_patch14_336_paper")
    assert config.to_diff_dict() == MoECLIPConfig(base_model_name_or_path=LARGE).to_diff_dict()


def test_released_config_differs_in_what_the_recipe_says():
    names = ("vit_large_patch14_336_paper", "vit_large_patch14_336_released")
    paper, released = (read(HUB_CONFIGS / name / "config.json") for name in names)
    for tower in ("vision_config", "text_config"):
        assert paper[tower].pop("hidden_act") == "quick_gelu"
        assert released[tower].pop("hidden_act") == "gelu"
    assert (paper["moe_lora"].pop("lora_dropout"), released["moe_lora"].pop("lora_dropout")) == (0.05, 0.0)
    for name in ("router_aux_loss_coef", "etf_loss_coef"):
        assert (paper.pop(name), released.pop(name)) == (0.01, 0.0)
    assert paper == released


def test_demo_config_is_that_of_the_packaged_model():
    packaged, here = read(Path(DEMO_MODEL) / "config.json"), read(HUB_CONFIGS / "tiny_demo" / "config.json")
    assert packaged.pop("adapters_only")
    assert packaged.pop("base_model_name_or_path") == "../tiny_clip"
    assert (here.pop("adapters_only"), here.pop("base_model_name_or_path")) == (False, None)
    packaged["moe_lora"].pop("seed"), here["moe_lora"].pop("seed")
    written = ("architectures", "dtype", "transformers_version", "custom_pipelines")
    for values in (packaged, packaged["vision_config"], packaged["text_config"], here):
        for name in written:
            values.pop(name, None)
    assert packaged == here


def test_demo_card_names_the_packaged_weights_and_their_record():
    card = (HUB_CONFIGS / "tiny_demo" / "README.md").read_text()
    assert f"`{Path(DEMO_MODEL).relative_to(HUB_CONFIGS.parent)}`" in card
    recipe, packaged = read_recipe(HUB_CONFIGS / "tiny_demo" / "recipe.json"), read_recipe(DEMO_RECIPE)
    assert recipe.values == packaged.values
    assert read_training_record(DEMO_MODEL)["recipe"] == packaged.name


def test_card(folder):
    card = (folder / "README.md").read_text()
    front_matter, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, flags=re.DOTALL).groups()
    clip = MODELS[folder.name][0]
    assert (f"base_model: {clip}" in front_matter) == (clip != DEMO_CLIP)
    assert "model-index" not in front_matter
    assert LIMITS in text
    assert "there are no weights here" in text
    named = re.findall(r"`(recipe\w*\.json)`", text)
    assert set(named) == {path.name for path in folder.glob("recipe_*.json")}
    assert f"--recipe hub_configs/{folder.name}/recipe.json " in text
