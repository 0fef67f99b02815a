"""The demo's picture: what the model saw, what it should find, what it found, and which expert looked where."""

import torch
from PIL import Image

from ..processing_moeclip import smooth_anomaly_logits
from ..visualization import chosen_experts, make_legend, make_sheet, overlay_anomaly_map, overlay_experts
from .benchmark import TEST_CATEGORIES, draw_sample


CHOICE = (
    ("woven_linen", "swapped_part"),
    ("pebbled_leather", "scratch"),
    ("perforated_sheet", "missing_part"),
    ("corrugated_sheet", "bent_part"),
    ("ceramic_mosaic", "swapped_part"),
    ("tread_plate", "stain"),
    ("hex_nut", "crack"),
    ("blister_pack", "missing_part"),
    ("pocket_comb", "bent_part"),
    ("tree_leaf", "hole"),
)
"""Category and defect of each row."""

COLUMNS = ("flawless", "map", "experts", "defective", "true mask", "map", "experts")

_FIRST_INDEX = 900  # pictures that the benchmark on disk does not hold


def draw_sheet(model, processor, seed: int) -> Image.Image:
    """Draws a row per chosen category: a flawless and a defective object, each with the model's view of it.

    Both maps of a row share one scale, from their smallest to their largest value. The last column of each half shows
    for every patch the expert that its router in the last MoE layer prefers.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The trained model, with experts.
        processor ([`MoECLIPProcessor`]): Its processor.
        seed (`int`): Seed of the pictures, which are none of those that the benchmark on disk holds.

    Returns:
        `PIL.Image.Image`: the sheet, RGB.
    """
    num_experts = list(model.moe_lora_layers().values())[-1].router.shape[0]
    rows = [_draw_row(model, processor, seed, name, defect, num_experts) for name, defect in CHOICE]
    titles = [f"{name}: {defect}".replace("_", " ") for name, defect in CHOICE]
    legend = make_legend(num_experts)
    return make_sheet(rows, column_titles=COLUMNS, row_titles=titles, legend=legend, tile_size=168)


@torch.inference_mode()
def _draw_row(model, processor, seed: int, name: str, defect: str, num_experts: int) -> list[Image.Image]:
    category = next(category for category in TEST_CATEGORIES if category.name == name)
    flawless, _ = draw_sample(category, seed, _FIRST_INDEX, None)
    flawed, mask = draw_sample(category, seed, _FIRST_INDEX + 1, defect)
    inputs = processor(images=[flawless, flawed], object_names=name.replace("_", " ")).to(model.device)
    outputs = model(**inputs, output_router_logits=True)
    maps = smooth_anomaly_logits(outputs.anomaly_logits)
    scale = (float(maps.min()), float(maps.max()))
    experts = chosen_experts(outputs.router_logits[-1])
    tiles = []
    for index, picture in enumerate((flawless, flawed)):
        tiles += [picture] if index == 0 else [picture, mask]
        tiles.append(overlay_anomaly_map(picture, maps[index], value_range=scale))
        tiles.append(overlay_experts(picture, experts[index], num_experts))
    return tiles
