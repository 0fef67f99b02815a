"""Repeats: surfaces covered with equal marks in rows, of which one or a few may be off.

What would come close to something that the benchmark tests on is left out: round holes or spots in rows, square tiles, and
marks that turn from one to the next, as those of its tread plate do.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .fields import Canvas
from .scenes import Scene
from .shapes import STYLES, Outline, random_outline, shade
from .textures import draw_material, draw_plain, random_colour


@dataclass(frozen=True)
class _Mark:
    """One mark within its cell: middle and size in shares of the cell, turn in radians, tint and whether it is there."""

    outline: Outline
    size: float
    angle: float
    middle: tuple[float, float] = (0.0, 0.0)
    tint: np.ndarray | None = None
    present: bool = True


@dataclass(frozen=True)
class _Repeat:
    """Everything that the picture shows, apart from what is wrong with it.

    `u` and `v` (height, width) count cells, so that their whole parts number the cell that a pixel lies in. The marks of
    every second cell may differ (`marks` holds one or two).
    """

    u: np.ndarray
    v: np.ndarray
    marks: tuple[_Mark, ...]
    ground: np.ndarray
    skin: np.ndarray
    tone: np.ndarray
    light: float
    style: str

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Column and row of each pixel."""
        return np.floor(self.u).astype(int), np.floor(self.v).astype(int)

    def render(self, off: _Mark | None = None, where: np.ndarray | None = None) -> np.ndarray:
        """The picture (height, width, 3), with the mark `off` in the cells `where`."""
        column, row = self.cells()
        number = (column + row) % len(self.marks)
        image = self.ground.copy()
        for index, mark in enumerate(self.marks):
            self._draw(image, mark, (number == index) if where is None else (number == index) & ~where)
        if off is not None:
            self._draw(image, off, where)
        return np.clip(image, 0, 1).astype(np.float32)

    def _draw(self, image: np.ndarray, mark: _Mark, where: np.ndarray) -> None:
        if not mark.present or not where.any():
            return
        x = (self.u - np.floor(self.u) - 0.5 - mark.middle[0]) / mark.size
        y = (self.v - np.floor(self.v) - 0.5 - mark.middle[1]) / mark.size
        cos, sin = np.cos(mark.angle), np.sin(mark.angle)
        depth = mark.outline.depth(cos * x + sin * y, cos * y - sin * x).astype(np.float32)
        steep = np.maximum(np.hypot(*np.gradient(self.u)) / mark.size, 1e-6)  # change of depth over a pixel, about
        cover = np.clip(depth / steep + 0.5, 0, 1) * where
        skin = self.skin if mark.tint is None else np.broadcast_to(mark.tint, self.skin.shape)
        body = skin * (shade(depth, self.light, self.style) * self.tone)[..., None]
        image += cover[..., None] * (body - image)


def _is_left_out(outline: Outline) -> bool:
    """Whether marks of this outline would look like round holes or like square tiles."""
    if outline.kind == "box":
        return outline.roundness < 0.5
    if outline.kind == "polygon":
        return outline.sides > 5
    if outline.kind in ("gear", "blob"):
        return max(abs(amplitude) for _, amplitude, _ in outline.waves) < 0.1
    return outline.kind == "disc"


def _mark_outline(rng: np.random.Generator) -> tuple[Outline, tuple[str, ...]]:
    """A random outline other than those left out."""
    while True:
        outline, nouns = random_outline(rng)
        if not _is_left_out(outline):
            return outline, nouns


def _mark(rng: np.random.Generator, angle: float) -> tuple[_Mark, tuple[str, ...]]:
    outline, nouns = _mark_outline(rng)
    return _Mark(outline, rng.uniform(0.22, 0.46), angle), nouns


def _other_colour(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A random colour (3,) that can be told from the mean of a picture."""
    while True:
        colour = random_colour(rng)
        if np.abs(colour - image.mean((0, 1))).mean() > 0.15:
            return colour


def draw_repeat(rng: np.random.Generator, canvas: Canvas, plain_share: float) -> tuple[_Repeat, tuple[str, ...]]:
    """A random repeat and the nouns of its marks."""
    u, v = canvas.rotated(rng.choice([0, np.pi / 2, rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)]))
    pitch, aspect = 1 / np.exp(rng.uniform(np.log(4), np.log(15))), rng.choice([1, rng.uniform(0.75, 1.5)])
    v = v / (pitch * aspect) + rng.uniform(0, 1)
    u = u / pitch + rng.uniform(0, 1) + rng.choice([0, 0.5, 0.5, rng.uniform(0, 1)]) * (np.floor(v) % 2)
    angle = rng.choice([0, rng.uniform(0, 2 * np.pi)])
    mark, nouns = _mark(rng, angle)
    marks = (mark,) if rng.random() < 0.7 else (mark, _mark(rng, angle)[0])
    draw = draw_plain if rng.random() < plain_share else partial(draw_material, calm=True)
    ground, _ = draw(rng, canvas)
    treatment = rng.choice(["printed", "raised", "inlaid"], p=[0.4, 0.35, 0.25])
    if treatment == "raised":
        skin = ground * rng.uniform(0.85, 1.15)
    else:
        skin = draw_material(rng, canvas, calm=True)[0] if treatment == "inlaid" else np.ones_like(ground)
        skin = skin * _other_colour(rng, ground) / skin.mean((0, 1))
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    table = rng.normal(0, rng.choice([0, 0.02, 0.06]), (97, 89))
    tone = (1 + table[column % 97, row % 89]).astype(np.float32)
    style = str(rng.choice(STYLES[1:] if treatment == "raised" else STYLES))
    return _Repeat(u, v, marks, ground, skin.astype(np.float32), tone, rng.uniform(0, 2 * np.pi), style), nouns


def _spoil(rng: np.random.Generator, repeat: _Repeat) -> np.ndarray:
    """The picture with one mark, or a short row of them, missing, moved, turned, resized, exchanged or tinted."""
    column, row = repeat.cells()
    at = rng.integers(column.shape[0]), rng.integers(column.shape[1])
    count = int(rng.choice([1, 1, 1, 2, 3]))
    where = (row == row[at]) & (column >= column[at]) & (column < column[at] + count)
    mark = repeat.marks[(column[at] + row[at]) % len(repeat.marks)]
    kind = rng.choice(
        ["missing", "moved", "turned", "resized", "exchanged", "tinted"], p=[0.35, 0.15, 0.1, 0.15, 0.15, 0.1]
    )
    if kind == "missing":
        mark = replace(mark, present=False)
    elif kind == "moved":
        mark = replace(mark, middle=tuple(rng.uniform(0.15, 0.35, 2) * rng.choice([-1, 1], 2)))
    elif kind == "turned":
        mark = replace(mark, angle=mark.angle + rng.uniform(0.4, 2.7))
    elif kind == "resized":
        mark = replace(mark, size=mark.size * rng.choice([0.4, 0.6, 1.5]))
    elif kind == "exchanged":
        mark = replace(mark, outline=_mark_outline(rng)[0])
    else:
        mark = replace(mark, tint=random_colour(rng))
    return repeat.render(mark, where)


def repeat_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """A surface of equal marks that fills the picture."""
    repeat, nouns = draw_repeat(rng, canvas, plain_share)
    noun = ("{}s", "set of {}s")[rng.integers(2)].format(nouns[rng.integers(len(nouns))])
    everywhere = np.ones(canvas.shape, bool)
    return Scene(canvas, repeat.render(), everywhere, noun, repaint=lambda own: _spoil(own, repeat))
