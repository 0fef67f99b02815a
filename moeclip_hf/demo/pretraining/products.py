"""Products: made things on a table, drawn with the benchmark's tools; random ones, and those of its training half.

A product is a body with sets of equal marks: printed, raised, sunk, inlaid, or cut right through. What would come close to
something that the benchmark tests on is left out: bodies of six sides, boxes with grids or with rows of bars, and round
bodies that are open in the middle.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..benchmark.canvas import (
    SIZE,
    Fault,
    blob_points,
    blur,
    cast_shadow,
    circle_points,
    fill,
    fractal_noise,
    lighten,
    noise,
    paint,
    place,
    polygons,
    relief,
    tabletop,
    vary,
)
from ..benchmark.categories import TRAIN_CATEGORIES
from .fields import Canvas
from .scenes import Scene
from .textures import random_colour


PRODUCT_NOUNS = {
    "round": ("disc", "plate", "lid", "button", "wheel", "coin"),
    "box": ("box", "card", "slab", "case", "block", "panel"),
    "polygon": ("plaque", "badge", "facet", "wedge"),
    "toothed": ("cog", "sprocket", "rosette", "knob", "flower"),
    "free": ("stone", "bean", "biscuit", "lump", "seed"),
}
"""What a body may be called, by its outline."""


@dataclass(frozen=True)
class _Mark:
    """One mark in the product's own frame, in which the body reaches 1: its outline there, its middle, its tint."""

    outline: np.ndarray
    middle: tuple[float, float]
    angle: float
    size: float
    tint: np.ndarray | None = None

    def points(self) -> np.ndarray:
        """Outline (n, 2) in the product's frame."""
        return place(self.outline, self.middle, self.angle, self.size)


@dataclass(frozen=True)
class _Set:
    """Equal marks and what they do: take a colour, stand out or lie deeper by `height`, or open the body."""

    marks: tuple[_Mark, ...]
    colour: np.ndarray | None
    height: float
    opens: bool


@dataclass(frozen=True)
class _Product:
    """Everything that a picture of one or several equal products shows, apart from what is wrong with it."""

    body: np.ndarray
    sets: tuple[_Set, ...]
    places: tuple[tuple[float, float, float, float], ...]
    colour: np.ndarray
    texture: np.ndarray
    behind: np.ndarray
    roundness: float
    relief: float
    light: float
    shadow_seed: int

    def render(
        self, sets_of_each: list[tuple[_Set, ...]], bites: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The picture (SIZE, SIZE, 3) with the sets of each place, less the `bites`, and what the products cover."""
        cover = polygons([self._put(self.body, spot) for spot in self.places])
        if bites is not None:
            cover = cover * (1 - bites)
        skin, height = fill(self.colour), cover
        for number, template in enumerate(self.sets):
            marks = [
                (mark, spot)
                for sets, spot in zip(sets_of_each, self.places, strict=True)
                for mark in sets[number].marks
            ]
            area = polygons([self._put(mark.points(), spot) for mark, spot in marks]) * cover
            if template.opens:
                cover = cover * (1 - area)
            if template.colour is not None:
                skin = paint(skin, area, template.colour)
            height = height + template.height * area
            for mark, spot in marks:
                if mark.tint is not None:
                    skin = paint(skin, polygons([self._put(mark.points(), spot)]), mark.tint)
        shade = self.relief * relief(blur(height * cover, self.roundness), self.light) + self.texture
        ground = cast_shadow(self.behind, cover, np.random.default_rng(self.shadow_seed))
        return np.clip(paint(ground, cover, lighten(skin, shade)), 0, 1).astype(np.float32), cover

    @staticmethod
    def _put(points: np.ndarray, spot: tuple[float, float, float, float]) -> np.ndarray:
        x, y, angle, size = spot
        return place(points, (x, y), angle, size)


def _bar(rng: np.random.Generator) -> np.ndarray:
    aspect = rng.uniform(0.08, 1)
    return np.array([[-1, -aspect], [1, -aspect], [1, aspect], [-1, aspect]])


def _star(count: int, inner: float) -> np.ndarray:
    return circle_points(2 * count, np.tile([1, inner], count))


def _mark_outline(rng: np.random.Generator, bars: bool = True) -> np.ndarray:
    kind = rng.choice([0, 1, 2, 3, 4] if bars else [0, 3, 4])
    if kind == 0:
        return circle_points(24) * [1, rng.choice([1, 1, rng.uniform(0.4, 1)])]
    if kind in (1, 2):
        return _bar(rng)
    if kind == 3:
        return circle_points(int(rng.integers(3, 9)))
    return _star(int(rng.integers(3, 9)), rng.uniform(0.35, 0.8))


def _body(rng: np.random.Generator) -> tuple[np.ndarray, float, str]:
    """Outline, its height relative to its width, and its kind."""
    kind = str(rng.choice(list(PRODUCT_NOUNS), p=[0.27, 0.3, 0.15, 0.16, 0.12]))
    if kind == "round":
        aspect = float(rng.choice([1, 1, rng.uniform(0.5, 1)]))
        return circle_points(64) * [1, aspect], aspect, kind
    if kind == "box":
        aspect, power = float(rng.uniform(0.25, 1)), rng.uniform(0.08, 0.5)
        angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
        waves = np.stack([np.cos(angles), np.sin(angles)], 1)
        return np.sign(waves) * np.abs(waves) ** power * [1, aspect], aspect, kind
    if kind == "polygon":
        aspect = float(rng.uniform(0.6, 1))
        return circle_points(int(rng.choice([3, 4, 5, 7, 8]))) * [1, aspect], aspect, kind
    if kind == "toothed":
        count, depth = int(rng.integers(5, 30)), rng.uniform(0.05, 0.25)
        angles = np.arange(count * 8) * 2 * np.pi
        wave = np.cos(angles / 8)
        wave = np.tanh(3 * wave) if rng.random() < 0.5 else wave
        return circle_points(count * 8, 1 - depth / 2 + depth / 2 * wave), 1.0, kind
    return blob_points(rng, 0.8, 0.2, 40), 0.8, kind


def _layout(rng: np.random.Generator, kind: str, aspect: float) -> list[tuple[float, float, float, float]]:
    """Middle, turn and room of marks set evenly about a circle, in a row, in a grid, or one in the middle."""
    if kind == "around":
        count, radius = int(rng.choice([2, 3, 4, 5, 6, 8, 10, 12, 16, 24])), rng.uniform(0.25, 0.85)
        turns = np.arange(count) * 2 * np.pi / count + rng.choice([0, np.pi / count, rng.uniform(0, 6.3)])
        room = min(0.28, 2.4 * radius / count)
        return [(radius * np.cos(t), radius * np.sin(t) * aspect, t, room * aspect) for t in turns]
    if kind == "row":
        count, reach, v = int(rng.integers(2, 13)), rng.uniform(0.4, 0.8), rng.choice([0, rng.uniform(-0.6, 0.6)])
        room = min(0.9 * reach / count, 0.3)
        return [(u, v * aspect, rng.choice([0, np.pi / 2]), room) for u in np.linspace(-reach, reach, count)]
    if kind == "grid":
        columns, rows = int(rng.integers(2, 7)), int(rng.integers(2, 5))
        across, down = rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.65) * aspect
        room = 0.85 * min(across / columns, down / rows)
        grid = [(u, v) for u in np.linspace(-across, across, columns) for v in np.linspace(-down, down, rows)]
        return [(u, v, 0.0, room) for u, v in grid]
    if kind == "pair":
        u, v, turn = rng.uniform(0.25, 0.65), rng.uniform(-0.4, 0.4) * aspect, rng.uniform(0, np.pi)
        return [(u, v, turn, 0.2), (-u, v, np.pi - turn, 0.2)]
    return [(0.0, 0.0, rng.uniform(0, 6.3), rng.uniform(0.15, 0.8) * aspect)]


def _marks(rng: np.random.Generator, body: str, aspect: float) -> _Set:
    layout = rng.choice(["around", "row", "grid", "single", "pair"], p=[0.4, 0.2, 0.2, 0.12, 0.08])
    if body == "box" and layout == "grid":
        layout = "around"
    outline, share = _mark_outline(rng, bars=body != "box" or layout != "row"), rng.uniform(0.35, 0.9)
    marks = tuple(_Mark(outline, (u, v), turn, room * share) for u, v, turn, room in _layout(rng, layout, aspect))
    treatment = rng.choice(["print", "raised", "sunk", "inlaid", "opening"], p=[0.3, 0.15, 0.1, 0.25, 0.2])
    if body == "round" and layout == "single" and treatment == "opening":
        treatment = "sunk"
    colour = random_colour(rng) if treatment in ("print", "inlaid") else None
    height = {"print": 0.0, "raised": 0.8, "sunk": -0.8, "inlaid": rng.choice([-0.7, 0.9]), "opening": 0.0}[treatment]
    return _Set(marks, colour, float(height), treatment == "opening")


def _inner_body(rng: np.random.Generator, body: np.ndarray) -> _Set:
    """An inner body of the same outline, in another tone or height."""
    mark = _Mark(body, (0, 0), 0.0, rng.uniform(0.5, 0.93))
    return _Set((mark,), random_colour(rng) if rng.random() < 0.4 else None, float(rng.choice([-0.6, 0.5])), False)


def _places(rng: np.random.Generator) -> tuple[tuple[float, float, float, float], ...]:
    """Middle in pixels, turn and size in pixels of each of the equal products."""
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)])
    rows, columns = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3))[rng.choice(5, p=[0.76, 0.07, 0.08, 0.05, 0.04])]
    if rows * columns == 1:
        return ((*rng.uniform(-14, 14, 2), angle, rng.uniform(58, 100)),)
    step = SIZE / max(rows, columns)
    size = step * rng.uniform(0.34, 0.46)
    return tuple(
        (
            (column - (columns - 1) / 2) * step + rng.normal(0, 2),
            (row - (rows - 1) / 2) * step + rng.normal(0, 2),
            angle if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi),
            size,
        )
        for row in range(rows)
        for column in range(columns)
    )


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Unevenness of the skin's brightness (SIZE, SIZE): none, cloudy, speckled or brushed."""
    kind, amount = rng.integers(4), rng.uniform(0.02, 0.09)
    if kind == 0:
        return np.zeros((SIZE, SIZE), np.float32)
    if kind == 1:
        return amount * fractal_noise(rng, 8, 3)
    return amount * (noise(rng, 90) if kind == 2 else noise(rng, 6, 110))


def draw_product(rng: np.random.Generator) -> tuple[_Product, str]:
    """A random product, or several alike, and the noun that names what is seen."""
    body, aspect, kind = _body(rng)
    sets = [_inner_body(rng, body) for _ in range(rng.choice([0, 1, 2], p=[0.4, 0.4, 0.2]))]
    sets += [_marks(rng, kind, aspect) for _ in range(rng.choice([0, 1, 2, 3], p=[0.1, 0.4, 0.35, 0.15]))]
    product = _Product(
        body,
        tuple(sets),
        _places(rng),
        vary(rng, random_colour(rng)),
        _texture(rng).astype(np.float32),
        tabletop(rng),
        rng.uniform(0.8, 2.0),
        rng.uniform(0.2, 0.6),
        rng.uniform(0, 2 * np.pi),
        int(rng.integers(2**31)),
    )
    nouns = PRODUCT_NOUNS[kind]
    noun = nouns[rng.integers(len(nouns))]
    return product, noun if len(product.places) == 1 else f"{noun}s"


def _spoil(rng: np.random.Generator, sets: tuple[_Set, ...]) -> tuple[_Set, ...]:
    """The same sets with one mark missing, moved, turned, resized, exchanged or off in colour."""
    regular = [number for number, group in enumerate(sets) if len(group.marks) > 1]
    chosen = regular[rng.integers(len(regular))]
    marks = list(sets[chosen].marks)
    index = int(rng.integers(len(marks)))
    mark = marks[index]
    kind = rng.choice(
        ["missing", "moved", "turned", "resized", "exchanged", "tinted"], p=[0.3, 0.14, 0.1, 0.12, 0.2, 0.14]
    )
    if kind == "missing":
        del marks[index]
    elif kind == "moved":
        shift = rng.uniform(0.5, 1.2, 2) * rng.choice([-1, 1], 2) * mark.size
        marks[index] = replace(mark, middle=(mark.middle[0] + shift[0], mark.middle[1] + shift[1]))
    elif kind == "turned":
        marks[index] = replace(mark, angle=mark.angle + rng.uniform(0.4, 2.7))
    elif kind == "resized":
        marks[index] = replace(mark, size=mark.size * rng.choice([0.5, 0.65, 1.4, 1.7]))
    elif kind == "exchanged":
        marks[index] = replace(mark, outline=_mark_outline(rng))
    else:
        marks[index] = replace(mark, tint=random_colour(rng))
    return (*sets[:chosen], replace(sets[chosen], marks=tuple(marks)), *sets[chosen + 1 :])


def _bite(rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """Cover of a ragged piece that is gone, on the edge of what `cover` holds or, now and then, within."""
    solid = cover > 0.5
    inner = blur(cover, 4.0)
    places = np.flatnonzero(solid & (inner < 0.75)) if rng.random() < 0.75 else np.flatnonzero(solid)
    if not len(places):
        return np.zeros_like(cover)
    row, column = divmod(int(places[rng.integers(len(places))]), SIZE)
    return polygons([blob_points(rng, rng.uniform(6, 20), 0.3) + np.array([column, row]) - (SIZE - 1) / 2])


def _framed(
    rng: np.random.Generator,
    image: np.ndarray,
    region: np.ndarray,
    noun: str,
    repaint: Callable[[np.random.Generator], np.ndarray],
) -> Scene:
    """The scene of a picture, or of a square part of it."""
    side = int(rng.uniform(140, SIZE)) if rng.random() < 0.35 else SIZE
    top, left = rng.integers(0, SIZE - side + 1, 2)
    window = (slice(top, top + side), slice(left, left + side))
    return Scene(
        Canvas(side, side),
        image[window],
        region[window] > 0.5,
        noun,
        repaint=lambda own: repaint(own)[window],
    )


def product_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """A random product, or several alike, on a canvas of its own."""
    product, noun = draw_product(rng)
    sound = [product.sets] * len(product.places)
    image, cover = product.render(sound)
    regular = any(len(group.marks) > 1 for group in product.sets)

    def repaint(own: np.random.Generator) -> np.ndarray:
        if not regular or own.random() < 0.3:
            return product.render(sound, _bite(own, cover))[0]
        chosen = int(own.integers(len(sound)))
        return product.render([*sound[:chosen], _spoil(own, product.sets), *sound[chosen + 1 :]])[0]

    return _framed(rng, image, cover, noun, repaint)


def category_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """A category of the benchmark's training half; what is wrong with it is its structure or a piece that is gone."""
    category = TRAIN_CATEGORIES[rng.integers(len(TRAIN_CATEGORIES))]
    seed = int(rng.integers(2**63))
    scene = category.paint(np.random.default_rng(seed), None)

    def repaint(own: np.random.Generator) -> np.ndarray:
        if category.structural and own.random() < 0.6:
            kind = category.structural[own.integers(len(category.structural))]
            return np.clip(category.paint(np.random.default_rng(seed), Fault(kind, own)).image, 0, 1)
        return np.clip(paint(scene.image, _bite(own, scene.region) * (scene.region > 0), scene.behind), 0, 1)

    noun = category.name.replace("_", " ")
    return _framed(rng, np.clip(scene.image, 0, 1).astype(np.float32), scene.region, noun, repaint)
