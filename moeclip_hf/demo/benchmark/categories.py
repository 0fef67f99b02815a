"""The benchmark's categories: which half each belongs to, who draws it and which defects it can have."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import seen_objects, seen_textures, unseen_objects, unseen_textures
from .canvas import Fault, Scene


@dataclass(frozen=True)
class Category:
    """One kind of object or material.

    Args:
        name (`str`): Ordinary words joined by underscores; the object's name in prompts has spaces instead.
        paint (`Callable`): Draws a scene from a generator and a structural fault or None.
        surface (`tuple[str, ...]`): Its defects out of `SURFACE_DEFECTS`.
        structural (`tuple[str, ...]`): Its defects that `paint` draws itself.
    """

    name: str
    paint: Callable[[np.random.Generator, Fault | None], Scene]
    surface: tuple[str, ...]
    structural: tuple[str, ...] = ()

    @property
    def defects(self) -> tuple[str, ...]:
        """All defects of the category, structural ones first."""
        return self.structural + self.surface


def _table(module, rows: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> tuple[Category, ...]:
    return tuple(
        Category(name, getattr(module, name), surface, structural) for name, (structural, surface) in rows.items()
    )


TRAIN_CATEGORIES: tuple[Category, ...] = _table(
    seen_textures,
    {
        "brushed_steel": ((), ("scratch", "dent", "stain", "hole", "crack")),
        "oak_plank": ((), ("crack", "hole", "stain", "scratch", "worn_patch")),
        "knitted_wool": (("missing_part", "swapped_part"), ("hole", "stain", "foreign_fibre")),
        "speckled_granite": ((), ("crack", "scratch", "stain", "hole", "worn_patch")),
        "wire_mesh": (("missing_part", "swapped_part"), ("stain", "foreign_fibre")),
        "dotted_wallpaper": (("missing_part", "swapped_part"), ("scratch", "stain", "hole", "worn_patch")),
        "rough_concrete": ((), ("crack", "hole", "stain", "scratch", "dent")),
        "plaster_wall": (("missing_part",), ("crack", "scratch", "dent", "stain", "hole")),
        "brick_wall": (("missing_part", "swapped_part"), ("crack", "stain", "worn_patch")),
    },
) + _table(
    seen_objects,
    {
        "coat_button": (("missing_part", "swapped_part"), ("crack", "chipped_edge", "scratch", "stain")),
        "gear_wheel": (("missing_part",), ("chipped_edge", "crack", "scratch", "stain")),
        "circuit_board": (("missing_part", "swapped_part"), ("scratch", "stain", "foreign_fibre")),
        "bottle_cap": (("missing_part",), ("dent", "scratch", "stain", "chipped_edge")),
        "clock_dial": (("missing_part", "swapped_part"), ("crack", "stain", "foreign_fibre", "scratch")),
        "round_biscuit": (("missing_part", "swapped_part"), ("chipped_edge", "crack", "stain", "foreign_fibre")),
        "china_saucer": (("missing_part",), ("crack", "chipped_edge", "scratch", "stain", "worn_patch")),
        "wax_candle": (("missing_part", "swapped_part"), ("crack", "dent", "hole", "foreign_fibre")),
    },
)
"""Categories to train on."""

TEST_CATEGORIES: tuple[Category, ...] = _table(
    unseen_textures,
    {
        "woven_linen": (("missing_part", "swapped_part"), ("hole", "stain", "foreign_fibre")),
        "pebbled_leather": ((), ("scratch", "crack", "stain", "worn_patch", "hole")),
        "perforated_sheet": (("missing_part", "swapped_part"), ("scratch", "dent", "stain")),
        "ceramic_mosaic": (("missing_part", "swapped_part"), ("crack", "scratch", "stain")),
        "corrugated_sheet": (("bent_part", "missing_part"), ("hole", "stain", "scratch")),
        "marble_slab": ((), ("crack", "scratch", "stain", "hole")),
        "tread_plate": (("missing_part", "swapped_part"), ("scratch", "dent", "stain")),
        "plaid_flannel": (("swapped_part",), ("hole", "stain", "foreign_fibre", "worn_patch")),
        "loop_carpet": (("missing_part",), ("stain", "foreign_fibre", "hole")),
    },
) + _table(
    unseen_objects,
    {
        "hex_nut": (("missing_part", "swapped_part"), ("crack", "scratch", "stain", "chipped_edge")),
        "blister_pack": (("missing_part", "swapped_part", "broken_part"), ("scratch", "stain")),
        "pocket_comb": (("missing_part", "bent_part"), ("crack", "stain", "chipped_edge")),
        "domino_tile": (("missing_part", "swapped_part"), ("crack", "chipped_edge", "scratch", "stain")),
        "tree_leaf": (("missing_part",), ("hole", "stain", "crack", "chipped_edge")),
        "pin_connector": (("missing_part", "bent_part"), ("scratch", "stain", "chipped_edge")),
        "ball_bearing": (("missing_part", "swapped_part"), ("scratch", "crack", "stain", "dent")),
        "folding_ruler": (("missing_part", "swapped_part"), ("crack", "scratch", "stain", "foreign_fibre")),
    },
)
"""Categories to test on: neither their looks nor their names occur in training, nor does the defect `bent_part`."""
