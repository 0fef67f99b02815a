"""Odd ones: equal flat parts of which one or two are off, from parts that lie on the patch grid to parts that lie anywhere.

To tell an odd part takes two things: to know parts again however the patches cut them, and to compare them. Neither is
learnt without the other, so that pictures with parts anywhere teach next to nothing. But where equal parts lie alike on the
patch grid, equal parts are equal patches, and comparing is learnt within a hundred steps. From there difficulty grows.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from .fields import blur


FAULTS = {"missing": 0.28, "tint": 0.12, "size": 0.18, "shape": 0.16, "turn": 0.1, "moved": 0.16}
"""What may be wrong with a part, and how often it is."""

_SUPERSAMPLING = 3
_LEAST_DIFFERENCE, _LEAST_PIXELS = 0.08, 20


@dataclass(frozen=True)
class _Part:
    """A filled outline (n, 2) that reaches about 1; its middle and size are in pixels, its turn is in radians."""

    outline: np.ndarray
    middle: np.ndarray
    size: float
    angle: float
    colour: np.ndarray


@dataclass(frozen=True)
class _Layout:
    """Where equal parts lie: middles (n, 2) and turns (n,), the room of each, and which would be missed if it were gone."""

    middles: np.ndarray
    turns: np.ndarray
    room: float
    missed: np.ndarray


@dataclass(frozen=True)
class OddOne:
    """A picture and its sound twin, float32 (size, size, 3) in [0, 1], and where they differ, bool (size, size)."""

    image: np.ndarray
    twin: np.ndarray
    mask: np.ndarray


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _outline(rng: np.random.Generator) -> np.ndarray:
    """Disc, bar, polygon, star, ellipse, blob or cross."""
    kind = rng.integers(7)
    if kind == 1:
        aspect = rng.uniform(0.25, 1)
        return np.array([[-1, -aspect], [1, -aspect], [1, aspect], [-1, aspect]])
    if kind == 6:
        a, b = rng.uniform(0.2, 0.45, 2)
        return np.array([[-1, -a], [-b, -a], [-b, -1], [b, -1], [b, -a], [1, -a], [1, a], [-1, a]])
    aspect, points = 1.0, int(rng.integers(3, 9))
    count = {0: 32, 2: points, 3: 2 * points, 4: 32, 5: 24}[int(kind)]
    angles, radius = np.arange(count) * 2 * np.pi / count, np.ones(count)
    if kind == 3:
        radius = np.tile([1, rng.uniform(0.35, 0.75)], points)
    elif kind == 4:
        aspect = rng.uniform(0.4, 0.8)
    elif kind == 5:
        waves = (rng.normal(0, 0.2 / k) * np.sin(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
        radius = 0.8 + sum(waves)
    return radius[:, None] * np.stack([np.cos(angles), aspect * np.sin(angles)], 1)


def _body_outline(rng: np.random.Generator) -> np.ndarray:
    """An outline without four or six corners: marks on such bodies would come close to what the benchmark tests on."""
    while True:
        outline = _outline(rng)
        if len(outline) not in (4, 6):
            return outline


def _other_colour(rng: np.random.Generator, other: np.ndarray | None = None, difference: float = 0.25) -> np.ndarray:
    """A colour, half of the time a grey, that differs this much from another in some channel, if one does in 50 tries."""
    for _ in range(50):
        colour = rng.uniform(0, 1, 3) if rng.random() < 0.5 else np.repeat(rng.uniform(0, 1), 3)
        if other is None or np.abs(colour - other).max() > difference:
            break
    return colour


def _ring(rng: np.random.Generator, size: int) -> _Layout:
    count, radius = int(rng.integers(4, 13 if size > 100 else 9)), rng.uniform(0.22, 0.38) * size
    turns = np.arange(count) * 2 * np.pi / count + rng.uniform(0, 2 * np.pi)
    middles = radius * np.stack([np.cos(turns), np.sin(turns)], 1) + rng.normal(0, 0.03 * size, 2)
    room = min(radius * np.pi / count, size / 2 - radius)
    return _Layout(middles, turns * rng.integers(2), room, np.arange(count))


def _grid(rng: np.random.Generator, size: int, patch: int, difficulty: float) -> _Layout:
    """Rows and columns; without difficulty every part lies alike on the patches."""
    cell = int(rng.integers(2, 1 + min(7, (size - patch) // (2 * patch))))  # at least two fit
    step, slack = cell * patch, patch / 2 * difficulty
    most = (size - patch) // step
    rows, columns = int(rng.integers(1, most + 1)), int(rng.integers(2, most + 1))
    if columns < 4:
        rows = max(rows, min(2, most))
    steps = step + rng.uniform(-slack, slack, 2) * (1 if cell > 2 else 0.5)
    cells = np.array([(column, row) for row in range(rows) for column in range(columns)])
    spare = [max(1, (size - (count - 1) * step - patch) // patch + 1) for count in (columns, rows)]
    corner = patch * rng.integers(0, spare) + patch / 2 - size / 2 + rng.uniform(-2 * slack, 2 * slack, 2)
    middles, room = cells * steps + corner, (step + (steps - step).min()) / 2
    if rng.random() < 2 * difficulty - 1:
        centre, width = middles.mean(0), steps[0]
        turn = _rotation(rng.choice([0, np.pi / 2, rng.uniform(-0.3, 0.3), rng.uniform(0, 2 * np.pi)]))
        middles = (middles - centre) * rng.uniform(0.6, 1) @ turn
        room = room * np.linalg.norm(middles[1] - middles[0]) / width
        middles = middles + centre * rng.uniform(0, 1)
    inner = (cells > 0) & (cells < [columns - 1, rows - 1])
    missed = inner.any(1) | (rows > 1 and max(rows, columns) > 2)
    return _Layout(middles, np.zeros(len(cells)), float(room), np.flatnonzero(missed))


def _draw(size: int, ground: np.ndarray, parts: list[_Part]) -> np.ndarray:
    """The parts, later ones above, on a ground of one colour: float32 (size, size, 3)."""
    fine = size * _SUPERSAMPLING
    picture = Image.new("RGB", (fine, fine), tuple((255 * ground).astype(int).tolist()))
    pen = ImageDraw.Draw(picture)
    for part in parts:
        points = (part.outline @ _rotation(part.angle) * part.size + part.middle + size / 2) * _SUPERSAMPLING
        colour = (255 * np.clip(part.colour, 0, 1)).astype(int)
        pen.polygon([tuple(point) for point in points.tolist()], fill=tuple(colour.tolist()))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def _spoil(rng: np.random.Generator, part: _Part, room: float, fault: str, difficulty: float) -> _Part | None:
    """The part with a fault; None where it is missing."""
    if fault == "missing":
        return None
    if fault == "tint":
        return replace(part, colour=_other_colour(rng, part.colour, 0.3 - 0.15 * difficulty))
    if fault == "size":
        factor = rng.choice([0.5, 0.65, 0.65]) if part.size > 0.6 * room else rng.choice([0.55, 1.35])
        return replace(part, size=part.size * factor)
    if fault == "shape":
        return replace(part, outline=_outline(rng))
    if fault == "turn":
        return replace(part, angle=part.angle + rng.uniform(0.4, 2.7))
    way = rng.uniform(0, 2 * np.pi)
    return replace(part, middle=part.middle + room * rng.uniform(0.45, 0.8) * np.array([np.cos(way), np.sin(way)]))


def _spoil_group(
    rng: np.random.Generator, group: list[_Part], room: float, fault: str, difficulty: float
) -> list[_Part]:
    """A part with its inner mark, if any, spoilt: the whole, which takes its mark along, or the mark alone."""
    part, marks = group[0], group[1:]
    if marks and rng.random() < 0.5:
        bad = _spoil(rng, marks[0], 0.6 * part.size, fault, difficulty)
        return [part] if bad is None else [part, bad]
    bad = _spoil(rng, part, room, fault, difficulty)
    if bad is None:
        return []
    scale = bad.size / part.size
    return [bad, *(replace(mark, middle=bad.middle, size=mark.size * scale, angle=bad.angle) for mark in marks)]


def _expose(rng: np.random.Generator, views: np.ndarray, difficulty: float) -> np.ndarray:
    """Uneven light, clouds, blur and noise on pictures (n, size, size, 3), on all alike."""
    if rng.random() >= 0.8 * difficulty:
        return views
    size = views.shape[1]
    slopes = rng.uniform(-0.6, 0.6, 2)
    down, across = np.mgrid[:size, :size] / size - 0.5
    views = views * (1 + slopes[0] * across + slopes[1] * down)[..., None]
    if rng.random() < 0.5:
        clouds = blur(rng.standard_normal((size, size)), rng.uniform(0.5, 6))
        views = views + (clouds / clouds.std() * rng.uniform(0, 0.08))[..., None]
    if rng.random() < 0.4:
        soft = rng.uniform(0.3, 1.2)
        views = np.stack([blur(view, soft) for view in views])
    return views + rng.standard_normal((size, size, 1)) * rng.uniform(0, 0.05)


def _groups(rng: np.random.Generator, layout: _Layout, ground: np.ndarray, difficulty: float) -> list[list[_Part]]:
    """The equal parts of a layout, each alone or with a mark within it."""
    outline, colour, size = _outline(rng), _other_colour(rng, ground), layout.room * rng.uniform(0.45, 0.92)
    angle, wobble = rng.uniform(0, 2 * np.pi), difficulty * rng.choice([0, 0, 0.03, 0.08])
    tones = 1 + rng.normal(0, 0.04 * difficulty * rng.integers(2), len(layout.middles))
    mark = None
    if rng.random() < 0.25 * difficulty:
        mark = _Part(_outline(rng), np.zeros(2), size * rng.uniform(0.3, 0.55), 0.0, _other_colour(rng, colour, 0.2))
    groups = []
    for middle, turn, tone in zip(layout.middles, layout.turns, tones, strict=True):
        middle, turn = middle + rng.normal(0, wobble, 2) * size, angle + turn + rng.normal(0, wobble)
        part = _Part(outline, middle, size, turn, colour * tone)
        groups.append([part] if mark is None else [part, replace(mark, middle=middle, angle=turn)])
    return groups


def draw_odd_one(rng: np.random.Generator, size: int, patch: int, difficulty: float) -> OddOne:
    """A picture of equal parts of which one, or now and then two, are off.

    `size` and `patch` are sides in pixels; a picture has room for at least six patches a side. `difficulty` grows from 0,
    parts that lie alike on the patches, evenly lit, to 1: parts anywhere, in rows of any direction or in rings, unevenly
    placed and lit.
    """
    while True:
        ground = _other_colour(rng)
        layout = _ring(rng, size) if rng.random() < 0.35 * difficulty else _grid(rng, size, patch, difficulty)
        groups = _groups(rng, layout, ground, difficulty)
        fault = str(rng.choice(list(FAULTS), p=list(FAULTS.values())))
        candidates = layout.missed if fault == "missing" else np.arange(len(groups))
        if groups[0][0].size < 4 or len(groups) < 3 or not len(candidates):
            continue
        body = []
        if rng.random() < 0.35:
            colour, angle = _other_colour(rng, ground, 0.15), rng.uniform(0, 2 * np.pi) * difficulty
            if np.abs(colour - groups[0][0].colour).max() < 0.25:
                continue
            body = [_Part(_body_outline(rng), np.zeros(2), 0.47 * size, angle, colour)]
        spoilt, chosen = list(groups), [int(rng.choice(candidates))]
        if rng.random() < 0.3 and len(groups) > 7 and fault != "missing":
            chosen.append(int(rng.integers(len(groups))))
        for number in set(chosen):
            spoilt[number] = _spoil_group(rng, groups[number], layout.room, fault, difficulty)
        twin, image = (
            _draw(size, ground, body + [part for group in all_ for part in group]) for all_ in (groups, spoilt)
        )
        mask = np.abs(image - twin).max(-1) > _LEAST_DIFFERENCE
        if mask.sum() < _LEAST_PIXELS:
            continue
        image, twin = np.clip(_expose(rng, np.stack([image, twin]), difficulty), 0, 1).astype(np.float32)
        return OddOne(image, twin, mask)
