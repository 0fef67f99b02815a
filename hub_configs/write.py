"""Writes each model's configuration, processor configuration and card from its recipe and its CLIP's sizes.

    python hub_configs/write.py

The recipes are the source and are not touched. A model that is trained by a recipe gets the same configuration,
with the seed of its run.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from transformers import CLIPConfig

from moeclip_hf import MoECLIPConfig, MoECLIPImageProcessor
from moeclip_hf.backbone_moeclip import config_on_clip
from moeclip_hf.model_card import create_recipe_card
from moeclip_hf.training.presets import get_preset
from moeclip_hf.training.recipe import get_model_arguments
from moeclip_hf.training.recipe_file import Recipe, read_recipe


HERE = Path(__file__).parent

# Of each published CLIP: layers, width and heads of both towers, patch, joint width, activation. The vision tower's
# native size plays no part: its position embeddings are resized to the recipe's.
CLIPS = {
    "openai/clip-vit-large-patch14-336": ((24, 1024, 16), (12, 768, 12), 14, 768, "quick_gelu"),
    "openai/clip-vit-base-patch16": ((12, 768, 12), (12, 512, 8), 16, 512, "quick_gelu"),
    "openai/clip-vit-base-patch32": ((12, 768, 12), (12, 512, 8), 32, 512, "quick_gelu"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ((32, 1280, 16), (24, 1024, 16), 14, 1024, "gelu"),
}

# What a card calls the model, and what it says of the choice.
MODELS = {
    "vit_large_patch14_336_paper": (
        "MoECLIP, ViT-L/14 at 518 pixels, recipe `paper`",
        "The method as the paper describes it: both auxiliary losses and the experts' dropout take part in training, and\n"
        "CLIP keeps the activation it was trained with. The clipping of the gradient is an addition to the paper.",
    ),
    "vit_large_patch14_336_released": (
        "MoECLIP, ViT-L/14 at 518 pixels, recipe `released`",
        "The method as the authors' released code runs it, for comparison: it trains in evaluation mode, so that neither\n"
        "auxiliary loss nor the experts' dropout takes part, at a tenth of the paper's learning rate and without\n"
        "clipping, and it builds CLIP with exact GELU. `paper` is the recommended recipe.",
    ),
    "vit_base_patch16": (
        "MoECLIP, ViT-B/16 at 512 pixels",
        "A light model with a fine grid: 32 x 32 patches. The paper does not have it; its recipe is the paper's.",
    ),
    "vit_base_patch32": (
        "MoECLIP, ViT-B/32 at 512 pixels",
        "The lightest model, for a CPU: 16 x 16 patches, so its maps are coarse. The paper does not have it; its recipe\n"
        "is the paper's.",
    ),
    "vit_huge_patch14": (
        "MoECLIP, ViT-H/14 at 518 pixels",
        "A larger CLIP, of other weights (LAION-2B, exact GELU). The paper does not have it; its recipe is the paper's.",
    ),
    "tiny_demo": (
        "MoECLIP, the demo's tiny model at 168 pixels",
        "What `moeclip demo` trains, in minutes on a CPU and on drawn pictures; for demonstration only. Weights of such a\n"
        "training come with the package, in `moeclip_hf/demo/tiny_moeclip`, and their record beside them.",
    ),
}


def read_clip_config(clip: str) -> CLIPConfig:
    """Gives the configuration of a CLIP: the demo's from its folder, a published one from its sizes."""
    if os.path.isdir(clip):
        return CLIPConfig.from_pretrained(clip)
    vision, text, patch_size, projection_dim, hidden_act = CLIPS[clip]
    towers = [
        {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": heads,
            "projection_dim": projection_dim,
            "hidden_act": hidden_act,
        }
        for layers, width, heads in (vision, text)
    ]
    vision_config = {**towers[0], "patch_size": patch_size}
    return CLIPConfig(vision_config=vision_config, text_config=towers[1], projection_dim=projection_dim)


def build_config(recipe: Recipe) -> MoECLIPConfig:
    """Gives the configuration of a model after its training by a recipe, but for the seed, which is the run's."""
    clip, preset, values = recipe.values["clip"], get_preset(recipe.preset), recipe.values
    config = config_on_clip(
        read_clip_config(clip),
        base_model_name_or_path=None
        if os.path.isdir(clip)
        else clip,  # a folder of this checkout means nothing elsewhere
        **get_model_arguments(recipe),
    )
    config.moe_lora = {**config.moe_lora, "seed": 0}
    # as the trainer sets them in the model
    for name in ("router_aux_loss_coef", "etf_loss_coef", "lora_dropout"):
        value = values.get(name, getattr(preset, name))
        if value is not None and name == "lora_dropout":
            config.moe_lora = {**config.moe_lora, name: value}
        elif value is not None:
            setattr(config, name, value)
    return config


def write_model(name: str, target: Path) -> None:
    """Writes one model's files, without what tells where they were written."""
    title, about = MODELS[name]
    recipe = read_recipe(HERE / name / "recipe.json")
    config = build_config(recipe)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        config.save_pretrained(scratch)
        MoECLIPImageProcessor(size=config.vision_config.image_size).save_pretrained(scratch)
        written = json.loads((Path(scratch) / "config.json").read_text())
        image_processor = json.loads((Path(scratch) / "preprocessor_config.json").read_text())
    processor = {"image_processor": image_processor, "processor_class": "MoECLIPProcessor"}
    for file, content in (("config.json", written), ("processor_config.json", processor)):
        text = json.dumps(without_traces(content), indent=2, sort_keys=True)
        (target / file).write_text(f"{text}\n")
    recipes = [path.name for path in sorted((HERE / name).glob("recipe*.json"))]
    (target / "README.md").write_text(str(create_recipe_card(config, name, title, about, recipes)))


def without_traces(values):
    """Leaves out which version wrote a file and which code lies beside it."""
    if not isinstance(values, dict):
        return values
    traces = {"transformers_version", "auto_map", "custom_pipelines"}
    return {key: without_traces(value) for key, value in values.items() if key not in traces}


def main():
    """Writes every model's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for name in MODELS:
        write_model(name, HERE / name)


if __name__ == "__main__":
    main()
