"""The embedded default: a procedural benchmark, a tiny pretrained CLIP and the adapters trained on it."""

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from PIL import Image


DEMO_CLIP = str(Path(__file__).parent / "tiny_clip")
"""Folder of the tiny CLIP, pretrained on procedural pictures."""

DEMO_MODEL = str(Path(__file__).parent / "tiny_moeclip")
"""Folder of the adapters that `moeclip demo` trains on the tiny CLIP: loads with `from_pretrained`, offline."""

DEMO_RECIPE = str(Path(__file__).parent / "recipe.json")
"""Recipe by which `moeclip demo` trains, for `moeclip train --recipe` and `moeclip ablate --base` too."""

__all__ = ["DEMO_CLIP", "DEMO_MODEL", "DEMO_RECIPE", "draw_example"]


def draw_example(name: str = "hex_nut", defect: str | None = "crack", *, index: int = 0) -> "Image.Image":
    """Draws a picture of an object that the demo's model has never seen.

    Args:
        name (`str`, *optional*, defaults to `"hex_nut"`): A category of the benchmark's test half.
        defect (`str`, *optional*, defaults to `"crack"`): One of the category's defects; None draws a flawless object.
        index (`int`, *optional*, defaults to 0): Number of the picture; another number gives another picture.

    Returns:
        `PIL.Image.Image`: an RGB picture of 224 x 224 pixels, the same on every call.

    Raises:
        ValueError: If the test half lacks the category, or the category the defect.
    """
    from .benchmark import TEST_CATEGORIES, draw_sample

    categories = {category.name: category for category in TEST_CATEGORIES}
    if name not in categories:
        raise ValueError(f"`name` ({name!r}) must be a category of the test half: {', '.join(categories)}.")
    return draw_sample(categories[name], 1, index, defect)[0]
