"""Outlines: random shapes as inside distances, from which masks, bevels and domes follow."""

from dataclasses import dataclass

import numpy as np

from .fields import Canvas, relief


@dataclass(frozen=True)
class Outline:
    """A kind of outline with its parameters, apart from its place, size and turn, so that it can be drawn repeatedly.

    `depth` grows from 0 on the edge to about `1` at the middle of a shape of size 1; it is negative outside.
    """

    kind: str
    aspect: float = 1.0
    roundness: float = 0.3
    waves: tuple[tuple[int, float, float], ...] = ()
    sides: int = 6
    hole: float = 0.5

    def depth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Inside distance at coordinates in shape units (the shape reaches about 1 from its middle)."""
        v = v / np.float32(self.aspect)
        if self.kind == "box":
            corner = self.roundness
            du, dv = np.abs(u) - (1 - corner), np.abs(v) - (1 - corner)
            outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
            return corner - outside - np.minimum(np.maximum(du, dv), 0)
        radius = np.hypot(u, v)
        if self.kind == "disc":
            return 1 - radius
        if self.kind == "ring":
            half = (1 - self.hole) / 2
            return half - np.abs(radius - (1 - half))
        angle = np.arctan2(v, u)
        if self.kind == "polygon":
            sector = 2 * np.pi / self.sides
            return np.cos(sector / 2) - radius * np.cos((angle + 100 * sector) % sector - sector / 2)
        edge = np.ones_like(radius) * 0.8
        for count, amplitude, phase in self.waves:
            wave = np.sin(count * angle + phase)
            edge = edge + amplitude * (np.tanh(4 * wave) if self.kind == "gear" else wave)
        return edge - radius


OUTLINE_NOUNS = {
    "disc": ("disc", "coin", "plate", "lid", "button", "wheel"),
    "box": ("box", "block", "card", "slab", "case", "brick"),
    "pill": ("rod", "roll", "stick", "lozenge", "sausage", "bar"),
    "ring": ("ring", "washer", "gasket", "hoop", "tyre"),
    "polygon": ("plaque", "badge", "facet", "hexagon", "wedge"),
    "gear": ("cog", "sprocket", "flower", "rosette", "knob"),
    "blob": ("stone", "bean", "potato", "biscuit", "lump", "seed"),
}


def random_outline(rng: np.random.Generator) -> tuple[Outline, tuple[str, ...]]:
    """An outline of a random kind and the nouns that may name what it bounds."""
    name = list(OUTLINE_NOUNS)[rng.integers(len(OUTLINE_NOUNS))]
    nouns = OUTLINE_NOUNS[name]
    if name == "disc":
        return Outline("disc", aspect=rng.choice([1, 1, rng.uniform(0.5, 1)])), nouns
    if name == "box":
        return Outline("box", aspect=rng.uniform(0.4, 1), roundness=rng.uniform(0.02, 0.4)), nouns
    if name == "pill":
        return Outline("box", aspect=rng.uniform(0.18, 0.5), roundness=rng.uniform(0.5, 0.98)), nouns
    if name == "ring":
        return Outline("ring", aspect=rng.uniform(0.7, 1), hole=rng.uniform(0.25, 0.75)), nouns
    if name == "polygon":
        return Outline("polygon", aspect=rng.uniform(0.6, 1), sides=int(rng.integers(3, 9))), nouns
    if name == "gear":
        waves = ((int(rng.integers(4, 16)), rng.uniform(0.04, 0.2), rng.uniform(0, 6.3)),)
        return Outline(rng.choice(["gear", "blob"]), waves=waves), nouns
    waves = tuple((k, rng.normal(0, 0.2 / k), rng.uniform(0, 6.3)) for k in range(2, 7))
    return Outline("blob", aspect=rng.uniform(0.5, 1), waves=waves), nouns


@dataclass(frozen=True)
class Placement:
    """Where an outline lies: middle and size in canvas units, turn in radians."""

    x: float = 0.0
    y: float = 0.0
    size: float = 0.3
    angle: float = 0.0

    def moved(self, **changes: float) -> "Placement":
        """A copy with some fields changed."""
        return Placement(**{**self.__dict__, **changes})


def draw_outline(
    canvas: Canvas, outline: Outline, place: Placement, window: tuple[slice, slice] = (slice(None), slice(None))
) -> tuple[np.ndarray, np.ndarray]:
    """Antialiased cover in [0, 1] and inside depth (about 1 in the middle) on a window of the canvas."""
    x, y = (axis[window] - middle for axis, middle in zip(canvas.coordinates, (place.x, place.y), strict=True))
    cos, sin = np.cos(place.angle) / place.size, np.sin(place.angle) / place.size
    depth = outline.depth(cos * x + sin * y, cos * y - sin * x).astype(np.float32)
    cover = np.clip(depth * np.float32(place.size * canvas.pixels_per_unit) + 0.5, 0, 1)
    return cover, depth


_SHADING = {"dome": (1.0, 0.2175210026530267), "bevel": (0.1750190933209334, 0.27738703621330657)}
"""Width of the rounded rim as a share of the depth, and strength of the shading."""

STYLES = ("flat", "dome", "bevel")


def shade(depth: np.ndarray, light: float, style: str) -> np.ndarray:
    """Brightness factor (height, width) of a body with this inside depth, lit from `light` (radians)."""
    if style == "flat":
        return np.ones_like(depth)
    width, strength = _SHADING[style]
    height = np.sqrt(1 - (1 - np.clip(np.clip(depth, 0, 1) / width, 0, 1)) ** 2)
    return (1 + strength * relief(height, light, 0.8)).astype(np.float32)
