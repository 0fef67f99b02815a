"""Unfamiliar things: what a pretrained tower is chosen by. Neither the pretraining nor the demo draws any of them.

How well a tower ranks the benchmark's training half says little, since it has seen those looks, and its test half may
choose nothing. These six have the same camera and the same kinds of defect.
"""

import numpy as np
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from ...processing_moeclip import resize_anomaly_map, smooth_anomaly_logits
from ..benchmark.canvas import (
    Fault,
    Scene,
    X,
    Y,
    blur,
    cast_shadow,
    circle_points,
    colour,
    disc,
    fill,
    fractal_noise,
    lighten,
    paint,
    pick,
    place,
    polygons,
    relief,
    ring,
    rounded_box,
    tabletop,
)
from ..benchmark.categories import Category
from ..benchmark.drawing import draw_sample
from ..benchmark.writing import sample_plan
from .measure import auroc, normalise, state_maps


_SEED = 9_000_002

_COLOURS = [
    (0.6,),
    (0.3,),
    (0.8,),
    (0.15,),
    (0.7, 0.2, 0.2),
    (0.2, 0.3, 0.6),
    (0.7, 0.6, 0.3),
    (0.2, 0.5, 0.3),
]


class _Pose:
    """Where a thing lies: its middle in pixels, its turn, and how many pixels its own unit has."""

    def __init__(self, rng: np.random.Generator, size: tuple[float, float], turned: bool = True):
        self.middle = tuple(float(shift) for shift in rng.uniform(-12, 12, 2))
        self.angle = float(rng.uniform(0, 2 * np.pi) if turned else rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1))
        self.size = float(rng.uniform(*size))

    def put(self, points) -> np.ndarray:
        """Points (n, 2) of the thing's own frame, in pixels."""
        return place(np.array(points, np.float64), self.middle, self.angle, self.size)

    def box(self, u: float, v: float, half_width: float, half_height: float, corner: float) -> np.ndarray:
        """Coverage of a rounded box given in the thing's own frame."""
        (spot,) = self.put([(u, v)])
        return rounded_box(*spot, half_width * self.size, half_height * self.size, corner, self.angle)


def _bar(left: float, right: float, half_height: float, middle: float = 0.0) -> np.ndarray:
    low, high = middle - half_height, middle + half_height
    return np.array([[left, low], [right, low], [right, high], [left, high]])


def _one_of(fault: Fault | None, kind: str, count: int) -> int | None:
    """The number of the part that has this fault; None if none has."""
    return int(fault.rng.integers(count)) if fault is not None and fault.kind == kind else None


def _finish(rng: np.random.Generator, body: np.ndarray, skin: np.ndarray, height: np.ndarray, gloss: float) -> Scene:
    behind = tabletop(rng)
    shade = 0.4 * relief(blur(height, 1.3), rng.uniform(0, 2 * np.pi)) + 0.04 * fractal_noise(rng, 8, 3)
    shade = shade + gloss * np.cos((0.5 * X + Y) * 0.03 + rng.uniform(0, 2 * np.pi))
    image = paint(cast_shadow(behind, body, rng), body, np.clip(lighten(skin, shade), 0, 1))
    return Scene(image.astype(np.float32), body, behind)


def _traffic_sign(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Plate of three, four or eight sides with a border and three bars; a bar may be missing or too short."""
    pose, outline = _Pose(rng, (64, 86)), circle_points(int(rng.choice([3, 4, 8])))
    body, *inner = (polygons([pose.put(outline * share)]) for share in (1, 0.86, 0.8))
    skin = fill(pick(rng, _COLOURS))
    for area in inner:
        skin = paint(skin, area, pick(rng, _COLOURS))
    gone, short = _one_of(fault, "missing_part", 3), _one_of(fault, "swapped_part", 3)
    bars = [
        pose.put(_bar(-0.3, 0.3, 0.09, middle) * [0.5 if number == short else 1, 1])
        for number, middle in enumerate((-0.24, 0.0, 0.24))
        if number != gone
    ]
    skin = paint(skin, polygons(bars), pick(rng, _COLOURS))
    return _finish(rng, body, skin, body, 0.1)


def _wall_socket(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Square plate with a round well, two holes and two contacts; a hole may be missing, or square and too large."""
    pose, base = _Pose(rng, (62, 80), turned=False), pick(rng, _COLOURS)
    body, well = pose.box(0, 0, 1, 1, 10), disc(*pose.middle, 0.62 * pose.size)
    skin = lighten(fill(base), -0.25 * well)
    gone, square = _one_of(fault, "missing_part", 2), _one_of(fault, "swapped_part", 2)
    for number, u in enumerate((-0.25, 0.25)):
        if number != gone:
            hole = pose.box(u, 0, 0.16, 0.16, 1) if number == square else pose.box(u, 0, 0.1, 0.1, 0.1 * pose.size)
            skin = paint(skin, hole, base * 0.15)
    for v in (-0.5, 0.5):
        skin = paint(skin, pose.box(0, v, 0.12, 0.05, 1), colour(0.75, 0.72, 0.6))
    height = body - 0.8 * well + 0.5 * pose.box(0, 0, 0.9, 0.9, 8)
    return _finish(rng, body, skin, height, 0.1)


def _door_key(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Key with a round bow, a grooved stem and four wards; a ward may be missing."""
    pose, base, gone = _Pose(rng, (80, 95)), pick(rng, _COLOURS), _one_of(fault, "missing_part", 4)
    depths = rng.uniform(0.12, 0.25, 4)
    wards = [
        pose.put(_bar(left, left + 0.09, depth / 2, 0.07 + depth / 2))
        for number, (left, depth) in enumerate(zip((0.4, 0.55, 0.7, 0.85), depths, strict=True))
        if number != gone
    ]
    bow, hole = circle_points(40, 0.33) * [1, 0.9] - [0.65, 0], circle_points(30, 0.1) - [0.78, 0]
    body = polygons([pose.put(bow), pose.put(_bar(-0.4, 0.95, 0.08)), *wards]) * (1 - polygons([pose.put(hole)]))
    return _finish(rng, body, fill(base), body - 0.5 * polygons([pose.put(_bar(-0.3, 0.9, 0.02))]), 0.2)


def _table_fork(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Fork with four tines; one may be broken off or bent."""
    pose, base = _Pose(rng, (85, 100)), pick(rng, _COLOURS)
    gone, bent = _one_of(fault, "missing_part", 4), _one_of(fault, "swapped_part", 4)
    handle = [[-1, -0.09], [0.2, -0.05], [0.2, 0.05], [-1, 0.09]]
    neck = [[0.15, -0.06], [0.3, -0.2], [0.5, -0.22], [0.5, 0.22], [0.3, 0.2], [0.15, 0.06]]
    tines = [
        [[0.48, v - 0.04], [reach, v - 0.025 + aside], [reach, v + 0.025 + aside], [0.48, v + 0.04]]
        for number, v in enumerate((-0.18, -0.06, 0.06, 0.18))
        for reach, aside in [(0.6 if number == gone else 1.0, 0.09 if number == bent else 0.0)]
    ]
    body = polygons([pose.put(part) for part in (handle, neck, *tines)])
    return _finish(rng, body, fill(base), body, 0.2)


def _remote_control(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Long case with fifteen keys and a ring; a key may be missing or too large."""
    pose, aspect = _Pose(rng, (85, 100)), rng.uniform(0.3, 0.38)
    body, tint = pose.box(0, 0, 1, aspect, 10), pick(rng, _COLOURS)
    skin, height = fill(pick(rng, _COLOURS)), body
    gone, large = _one_of(fault, "missing_part", 15), _one_of(fault, "swapped_part", 15)
    spots = [(u, v) for u in np.linspace(-0.75, 0.3, 5) for v in (-0.6 * aspect, 0, 0.6 * aspect)]
    keys = [
        disc(*spot, pose.size * (0.085 if number == large else 0.055))
        for number, spot in enumerate(pose.put(spots))
        if number != gone
    ]
    for key in (*keys, ring(*pose.put([(0.65, 0)])[0], 0.15 * pose.size, 0.06 * pose.size)):
        skin, height = paint(skin, key, tint), height + 0.8 * key
    return _finish(rng, body, skin, height, 0.1)


def _compass_rose(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Disc with a star of points and a line about it; a point may be missing or too short."""
    pose, count = _Pose(rng, (66, 86)), int(rng.choice([5, 6, 8]))
    body, skin = disc(*pose.middle, pose.size), fill(pick(rng, _COLOURS))
    gone, short = _one_of(fault, "missing_part", count), _one_of(fault, "swapped_part", count)
    points = [
        pose.put(place([[0.15, -0.12], [0.5 if number == short else 0.85, 0], [0.15, 0.12]], angle=turn))
        for number, turn in enumerate(np.arange(count) * 2 * np.pi / count)
        if number != gone
    ]
    skin = paint(skin, polygons(points), pick(rng, _COLOURS))
    skin = paint(skin, ring(*pose.middle, 0.92 * pose.size, 0.05 * pose.size), pick(rng, _COLOURS))
    return _finish(rng, body, skin, body, 0.1)


_SURFACE = ("crack", "scratch", "stain", "chipped_edge", "foreign_fibre")
_BOTH = ("missing_part", "swapped_part")

UNFAMILIAR = (
    Category("traffic_sign", _traffic_sign, _SURFACE, _BOTH),
    Category("wall_socket", _wall_socket, _SURFACE, _BOTH),
    Category("door_key", _door_key, _SURFACE, ("missing_part",)),
    Category("table_fork", _table_fork, _SURFACE, _BOTH),
    Category("remote_control", _remote_control, _SURFACE, _BOTH),
    Category("compass_rose", _compass_rose, _SURFACE, _BOTH),
)


def measure_unfamiliar(
    clip: CLIPModel, tokenizer: CLIPTokenizer, sound: int = 40, defective: int = 49
) -> dict[str, float]:
    """Image AUROC, by the highest patch of the smoothed map, and pixel AUROC: means over the things.

    `sound` and `defective` are pictures of each.
    """
    size = clip.config.vision_config.image_size
    figures = [_measure_one(clip, tokenizer, category, size, sound, defective) for category in UNFAMILIAR]
    return {name: float(np.mean([figure[name] for figure in figures])) for name in figures[0]}


def _measure_one(
    clip: CLIPModel, tokenizer: CLIPTokenizer, category: Category, size: int, sound: int, defective: int
) -> dict[str, float]:
    images, masks = [], []
    for defect, numbers in sample_plan(category, sound, defective):
        for number in numbers:
            picture, mask = draw_sample(category, _SEED, number, defect)
            images.append(np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255)
            masks.append(np.asarray(mask.resize((size, size), Image.Resampling.NEAREST)) > 0)
    nouns = [category.name.replace("_", " ")] * len(images)
    maps = smooth_anomaly_logits(state_maps(clip, tokenizer, normalise(np.stack(images)), nouns)[0])
    masks = np.stack(masks)
    return {
        "image_auroc_by_patches": auroc(maps.flatten(1).amax(1).numpy(), masks.any((1, 2))),
        "pixel_auroc": auroc(resize_anomaly_map(maps, size).numpy(), masks),
    }
