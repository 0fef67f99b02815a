"""Defects of a surface: each takes a finished scene and returns its picture with one defect on the object's region."""

from collections.abc import Callable

import numpy as np

from .canvas import (
    SIZE,
    Scene,
    blob_points,
    blur,
    circle_points,
    colour,
    edge,
    lighten,
    lines,
    noise,
    paint,
    pick,
    place,
    polygons,
    relief,
)


def _spot(scene: Scene, rng: np.random.Generator, margin: float) -> np.ndarray:
    """Returns a point `(2,)` of the region, at least about `margin` pixels inside it where it is that wide."""
    inside = scene.region
    if margin >= 1:
        inside = np.pad(scene.region, int(margin), constant_values=0)
        inside = blur_box(inside, int(margin))
    candidates = np.flatnonzero(inside > 0.98 * inside.max())
    row, column = divmod(int(rng.choice(candidates)), SIZE)
    return np.array([column, row]) - (SIZE - 1) / 2


def blur_box(padded: np.ndarray, reach: int) -> np.ndarray:
    """Returns the mean over the square window of `reach` pixels to each side, for an array padded by `reach`."""
    total = np.pad(padded, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    side = 2 * reach + 1
    return (total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]) / side**2


def _wandering_line(rng: np.random.Generator, length: float, bend: float, jag: float, steps: int) -> np.ndarray:
    """Returns a line `(steps + 1, 2)` around the origin whose direction drifts by `bend` and jumps by `jag`."""
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps)) + rng.normal(0, jag, steps)
    moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length / steps
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    return points - points.mean(0)


def _contrasting(scene: Scene, coverage: np.ndarray, rng: np.random.Generator, amount: float) -> float:
    """Returns `amount` with the sign that stays visible on the brightness of the picture under `coverage`."""
    brightness = float((scene.image.mean(-1) * coverage).sum() / max(coverage.sum(), 1e-3))
    if brightness > 0.75:
        return -amount
    return amount if brightness < 0.3 else amount * rng.choice([-1, 1])


def scratch(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """One to three nearly straight thin grooves with a bright and a dark side."""
    middle = _spot(scene, rng, 12)
    stroke = _wandering_line(rng, rng.uniform(50, 130), 0.04, 0.02, 14)
    strokes = [stroke + middle]
    for _ in range(rng.integers(0, 3)):
        strokes.append(place(stroke, middle + rng.normal(0, 5, 2), rng.normal(0, 0.08), rng.uniform(0.4, 0.9)))
    coverage = lines(strokes, float(rng.uniform(1.4, 2.8))) * scene.region
    amount = _contrasting(scene, coverage, rng, rng.uniform(0.22, 0.42))
    side = np.roll(coverage, rng.choice([-1, 1], 2), axis=(0, 1)) * scene.region
    return scene.image + (amount * coverage - 0.35 * amount * side)[..., None]


def crack(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A dark jagged line of varying width, sometimes with a branch."""
    middle = _spot(scene, rng, 12)
    trunk = _wandering_line(rng, rng.uniform(50, 115), 0.16, 0.45, 22) + middle
    width = rng.uniform(1.7, 3.4)
    pieces = [trunk[i : i + 2] for i in range(len(trunk) - 1)]
    taper = 1 - 0.6 * np.abs(np.linspace(-1, 1, len(pieces)))
    widths = list(width * taper * rng.uniform(0.7, 1.2, len(pieces)))
    if rng.random() < 0.6:
        branch = _wandering_line(rng, rng.uniform(18, 40), 0.16, 0.45, 9)
        branch += trunk[rng.integers(6, 16)] - branch[0]
        pieces += [branch[i : i + 2] for i in range(len(branch) - 1)]
        widths += list(width * np.linspace(0.7, 0.3, len(branch) - 1))
    coverage = lines(pieces, widths) * scene.region
    image = paint(scene.image, coverage * rng.uniform(0.65, 0.95), scene.image * 0.25)
    lip = np.roll(coverage, (1, 1), axis=(0, 1)) * (1 - coverage) * scene.region
    return lighten(image, 0.2 * lip)


def hole(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A small irregular opening through which one sees what lies behind, with a lit rim."""
    radius = rng.uniform(7, 15)
    shape = polygons([blob_points(rng, radius, 0.2) + _spot(scene, rng, radius)]) * scene.region
    depth = blur(shape, 2.0)
    image = paint(scene.image, shape, scene.behind * (1.15 - 0.5 * depth[..., None]))
    return lighten(image, 1.2 * relief(depth, rng.uniform(0, 2 * np.pi)) * scene.region)


def stain(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A discoloured, partly transparent patch with a soft and somewhat darker edge."""
    radius = rng.uniform(13, 29)
    shape = polygons([blob_points(rng, radius, 0.3) + _spot(scene, rng, radius / 2)])
    shape = blur(shape, rng.uniform(0.8, 2.5)) * scene.region
    tint = pick(rng, [(0.45, 0.3, 0.15), (0.25, 0.22, 0.2), (0.5, 0.35, 0.3), (0.3, 0.38, 0.28), (0.8, 0.78, 0.7)])
    if abs(float(scene.image.mean()) - float(tint.mean())) < 0.12:
        tint = tint * 0.4
    strength = rng.uniform(0.35, 0.6) * (1 + 0.25 * noise(rng, 18))
    rim = 4 * shape * (1 - shape) * rng.uniform(0, 0.35)
    return paint(scene.image, np.clip(strength * (shape + rim), 0, 0.9), tint)


def dent(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A smooth hollow: lit on one side, shaded on the other, of the same colour."""
    radius = rng.uniform(13, 25)
    shape = polygons([blob_points(rng, radius, 0.12) + _spot(scene, rng, radius)])
    height = blur(shape, radius / 4)
    shading = relief(height, rng.uniform(0, 2 * np.pi)) * radius * rng.uniform(0.45, 0.75)
    return lighten(scene.image, np.clip(shading, -0.55, 0.7) * scene.region)


def worn_patch(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A rubbed spot in which pattern and relief have faded towards the surface's mean colour."""
    radius = rng.uniform(18, 32)
    shape = blur(polygons([blob_points(rng, radius, 0.25) + _spot(scene, rng, radius * 0.7)]), 2.5) * scene.region
    faded = blur(scene.image, 5.0)
    faded = faded + np.float32(rng.uniform(0.02, 0.1) * (-1 if faded.mean() > 0.65 else 1))
    return paint(scene.image, shape * rng.uniform(0.75, 0.95), faded + 0.01 * noise(rng, 90)[..., None])


def foreign_fibre(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A curled hair or thread that lies on the surface and casts a thin shadow."""
    stroke = _wandering_line(rng, rng.uniform(55, 120), 0.28, 0.0, 36) + _spot(scene, rng, 14)
    coverage = lines([stroke], float(rng.uniform(1.7, 2.9))) * scene.region
    tone = pick(rng, [(0.08,), (0.92,), (0.7, 0.15, 0.15), (0.15, 0.3, 0.65), (0.85, 0.75, 0.3)])
    if abs(float(scene.image.mean()) - float(tone.mean())) < 0.25:
        tone = colour(0.95) if scene.image.mean() < 0.5 else colour(0.05)
    shadow = np.roll(coverage, (2, 2), axis=(0, 1)) * scene.region
    return paint(lighten(scene.image, -0.3 * shadow), coverage, tone)


def chipped_edge(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A piece broken out of the object's rim, the broken face lighter or darker than the rest."""
    solid = scene.region > 0.5
    rim = solid & ~(np.roll(solid, 3, 0) & np.roll(solid, -3, 0) & np.roll(solid, 3, 1) & np.roll(solid, -3, 1))
    rim[:12] = rim[-12:] = rim[:, :12] = rim[:, -12:] = False
    row, column = divmod(int(rng.choice(np.flatnonzero(rim))), SIZE)
    middle = np.array([column, row]) - (SIZE - 1) / 2
    count = 13
    outline = circle_points(count, rng.uniform(10, 17) * rng.uniform(0.75, 1.25, count)) + middle
    bite = polygons([outline])
    face = np.clip(polygons([place(outline - middle, middle, 0, 1.3)]) - bite, 0, 1) * scene.region
    image = paint(scene.image, face * 0.8, np.clip(scene.image * rng.choice([0.6, 1.35]), 0, 1))
    return paint(image, bite * edge((scene.region - 0.02) * 100), scene.behind)


SURFACE_DEFECTS: dict[str, Callable[[Scene, np.random.Generator], np.ndarray]] = {
    "scratch": scratch,
    "crack": crack,
    "hole": hole,
    "stain": stain,
    "dent": dent,
    "worn_patch": worn_patch,
    "foreign_fibre": foreign_fibre,
    "chipped_edge": chipped_edge,
}
"""Defects that any category with a suitable surface can have; the others are drawn by the category's own painter."""
