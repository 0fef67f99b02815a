"""The demo's picture: what the model saw, what it should find, what it found, and which expert looked where."""

import colorsys

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..processing_moeclip import resize_anomaly_map, smooth_anomaly_logits
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

_TILE, _GAP, _HEAD, _MARGIN = 168, 4, 22, 150
_FIRST_INDEX = 900  # pictures that are in neither half of the written benchmark


def draw_sheet(model, processor, seed: int) -> Image.Image:
    """Draws a row per chosen category: a flawless and a defective object, each with the model's view of it.

    Both maps of a row share one scale, from their smallest to their largest value. The last column of each half shows
    for every patch the expert that its router in the last MoE layer prefers.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The trained model, with or without experts.
        processor ([`MoECLIPProcessor`]): Its processor.
        seed (`int`): Seed of the pictures, which are none of those that the benchmark on disk holds.

    Returns:
        `PIL.Image.Image`: the sheet, RGB.
    """
    step = _TILE + _GAP
    sheet = Image.new("RGB", (_MARGIN + step * len(COLUMNS), _HEAD + step * len(CHOICE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(COLUMNS):
        pen.text((_MARGIN + step * column + 4, 3), title, "black", font)
    categories = {category.name: category for category in TEST_CATEGORIES}
    for row, (name, defect) in enumerate(CHOICE):
        top = _HEAD + step * row
        pen.text((6, top + 4), f"{name}\n{defect}".replace("_", " "), "black", font)
        flawless, _ = draw_sample(categories[name], seed, _FIRST_INDEX, None)
        flawed, mask = draw_sample(categories[name], seed, _FIRST_INDEX + 1, defect)
        maps, experts = _look(model, processor, [flawless, flawed], name.replace("_", " "))
        tiles = [flawless, overlay_map(flawless, maps[0]), overlay_experts(flawless, experts, 0)]
        tiles += [flawed, mask.convert("RGB"), overlay_map(flawed, maps[1]), overlay_experts(flawed, experts, 1)]
        for column, tile in enumerate(tiles):
            sheet.paste(tile.resize((_TILE, _TILE), Image.Resampling.BICUBIC), (_MARGIN + step * column, top))
    return sheet


@torch.inference_mode()
def _look(model, processor, pictures: list[Image.Image], object_name: str):
    """Returns maps in [0, 1] on the pictures' pixels and, with experts, each patch's first choice on the grid."""
    inputs = processor(images=pictures, object_names=object_name, return_tensors="pt").to(model.device)
    outputs = model(**inputs, output_router_logits=True)
    maps = resize_anomaly_map(smooth_anomaly_logits(outputs.anomaly_logits), pictures[0].size[::-1])
    maps = ((maps - maps.min()) / (maps.max() - maps.min()).clamp_min(1e-6)).cpu().numpy()
    if not outputs.router_logits:
        return maps, None
    chosen = outputs.router_logits[-1][:, 1:].argmax(dim=-1)  # without the class token
    return maps, chosen.unflatten(1, (model.config.grid_size,) * 2).cpu().numpy()


def overlay_map(picture: Image.Image, values: np.ndarray) -> Image.Image:
    """Lays a map over a grey version of its picture, from blue through green to red.

    Args:
        picture (`PIL.Image.Image`): The picture.
        values (`np.ndarray` of shape `(height, width)`): The map on its pixels, in [0, 1].

    Returns:
        `PIL.Image.Image`: the overlay, RGB.
    """
    heat = np.clip(1.5 - np.abs(4 * values[..., None] - np.array([3, 2, 1])), 0, 1)
    return _blend(picture, heat, 0.5)


def overlay_experts(picture: Image.Image, chosen: np.ndarray | None, index: int) -> Image.Image:
    """Lays one colour per expert over a grey version of the picture.

    Args:
        picture (`PIL.Image.Image`): The picture.
        chosen (`np.ndarray` of shape `(batch_size, grid, grid)` or `None`): Number of each patch's expert.
        index (`int`): Row of the picture in `chosen`.

    Returns:
        `PIL.Image.Image`: the overlay, RGB; the picture itself for a model without experts.
    """
    if chosen is None:
        return picture
    num_colours = max(4, int(chosen.max()) + 1)
    colours = np.array([colorsys.hsv_to_rgb(number / num_colours, 0.85, 1) for number in range(num_colours)])
    grid = Image.fromarray((colours[chosen[index]] * 255).astype(np.uint8))
    patches = np.asarray(grid.resize(picture.size, Image.Resampling.NEAREST)) / 255
    return _blend(picture, patches, 0.45)


def _blend(picture: Image.Image, colours: np.ndarray, opacity: float) -> Image.Image:
    grey = np.asarray(picture.convert("L").convert("RGB")) / 255
    return Image.fromarray(((grey * (1 - opacity) + colours * opacity) * 255).astype(np.uint8))
