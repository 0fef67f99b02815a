"""Damage as photographs of used and broken things show it, drawn by formulas of its own.

It shares no code with the benchmark's defects, some of which are of the same kinds. Each kind takes
`(rng, canvas, image, place, body)`: the picture (height, width, 3) in [0, 1], a point (x, y) in units and the body's cover
(height, width). It gives the changed picture and where (float32 (height, width) in [0, 1]) that may differ.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .fields import Canvas, blur, log_uniform, mix, smooth_noise, smooth_step, spectral_noise


_FINENESS = 4
"""Strokes are drawn so many times larger, then averaged, so that thin ones keep their width."""


def _strokes(canvas: Canvas, strokes: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Cover of polylines, each of points (n, 2) in units and the half widths (n,) there."""
    sheet = Image.new("L", (canvas.width * _FINENESS, canvas.height * _FINENESS))
    pen = ImageDraw.Draw(sheet)
    scale = canvas.pixels_per_unit * _FINENESS
    middle = np.array([canvas.width, canvas.height]) * _FINENESS / 2
    for points, half_widths in strokes:
        pixels = points * scale + middle
        for start, stop, half in zip(pixels[:-1], pixels[1:], half_widths[:-1] * scale, strict=True):
            pen.line([*start, *stop], fill=255, width=max(1, round(2 * half)))
            if half > 1:
                pen.ellipse([*(stop - half), *(stop + half)], fill=255)
    return np.asarray(sheet.reduce(_FINENESS), np.float32) / 255


def _walk(rng: np.random.Generator, heading: float, length: float, drift: float, jag: float, steps: int) -> np.ndarray:
    """Points (steps + 1, 2) from the origin: the heading drifts slowly and is off a little at each step."""
    headings = heading + np.cumsum(rng.normal(0, drift, steps)) + rng.normal(0, jag, steps)
    sizes = rng.uniform(0.4, 1.6, steps) * length / steps
    return np.concatenate(
        [np.zeros((1, 2)), np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1) * sizes[:, None], 0)]
    )


def _ragged(
    rng: np.random.Generator, canvas: Canvas, place: np.ndarray, size: float, roughness: float, softness: float
) -> np.ndarray:
    """A spot with an uneven outline, from sharp to soft."""
    u, v = canvas.rotated(rng.uniform(0, np.pi), place)
    distance = np.hypot(u, v * np.float32(rng.uniform(1, 2.2))) / size
    return smooth_step(1 - distance + roughness * smooth_noise(rng, canvas, size * rng.uniform(0.25, 0.8)), softness)


def _shifted(canvas: Canvas, cover: np.ndarray, angle: float, distance: float) -> np.ndarray:
    """The cover moved by a distance in units, at least a pixel."""
    pixels = max(1.0, distance * canvas.pixels_per_unit)
    return np.roll(cover, (round(np.sin(angle) * pixels), round(np.cos(angle) * pixels)), (0, 1))


def fracture(rng, canvas, image, place, body):
    """A crack: jagged, thin towards its ends, often branched, dark inside, sometimes with a lit lip."""
    length, width = log_uniform(rng, 0.08, 0.6), log_uniform(rng, 0.0025, 0.009)
    heading, steps = rng.uniform(0, 2 * np.pi), int(rng.integers(8, 24))
    drift, jag = rng.uniform(0, 0.25), rng.uniform(0.1, 0.7)
    trunk = _walk(rng, heading, length, drift, jag, steps)
    trunk += place - trunk[steps // 2]
    taper = np.interp(np.arange(steps + 1), [0, steps * rng.uniform(0.2, 0.8), steps], [rng.uniform(0.2, 1), 1, 0.2])
    strokes = [(trunk, width * taper * rng.uniform(0.6, 1.3, steps + 1))]
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        turn = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.3)
        count = int(rng.integers(4, 12))
        branch = _walk(rng, turn, length * rng.uniform(0.15, 0.5), drift, jag, count)
        strokes.append((branch + trunk[rng.integers(1, steps)], width * np.linspace(0.8, 0.2, count + 1)))
    gap = _strokes(canvas, strokes) * body
    inside = image * rng.uniform(0, 0.45) if rng.random() < 0.85 else image + (1 - image) * rng.uniform(0.5, 0.9)
    changed = mix(image, inside, gap * rng.uniform(0.55, 1))
    lip = _shifted(canvas, gap, rng.uniform(0, 6.3), 0.005) * (1 - gap) * body
    if rng.random() < 0.5:
        changed = changed + (rng.uniform(0.05, 0.3) * lip)[..., None]
    return changed, np.maximum(gap, lip)


def scoring(rng, canvas, image, place, body):
    """Scratches: thin grooves in smooth arcs, side by side, that come and go along their way."""
    heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25)
    length, width = log_uniform(rng, 0.1, 0.7), log_uniform(rng, 0.0018, 0.007)
    t = np.linspace(-0.5, 0.5, 17)
    strokes = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        turn, own = heading + rng.normal(0, 0.07), length * rng.uniform(0.4, 1)
        along, across = t * own, bend * own * (4 * t**2 - 1)
        points = np.stack(
            [np.cos(turn) * along - np.sin(turn) * across, np.sin(turn) * along + np.cos(turn) * across], 1
        )
        offset = np.zeros(2) if not strokes else rng.normal(0, 0.03, 2)
        strokes.append(
            (points + place + offset, width * rng.uniform(0.5, 1.1) * (1 - rng.uniform(0, 0.9) * 2 * np.abs(t)))
        )
    groove = _strokes(canvas, strokes) * body
    if rng.random() < 0.5:
        groove = groove * np.clip(0.7 + 0.4 * smooth_noise(rng, canvas, 0.1), 0, 1)
    amount = rng.uniform(0.15, 0.6) * _visible_sign(rng, image, groove)
    other = _shifted(canvas, groove, rng.uniform(0, 6.3), 0.004) * body
    side = rng.choice([0, rng.uniform(0.2, 0.8)])
    return image + (amount * groove - side * amount * other)[..., None], np.maximum(groove, other)


def _visible_sign(rng: np.random.Generator, image: np.ndarray, cover: np.ndarray) -> int:
    """1 for lighter, -1 for darker, as there is room for under the cover."""
    bright = float((image.mean(-1) * cover).sum() / max(float(cover.sum()), 1e-3))
    return 1 if rng.random() > np.clip((bright - 0.2) / 0.6, 0, 1) else -1


def abrasion(rng, canvas, image, place, body):
    """Worn: pattern and relief rubbed away towards the mean, with fine marks of the rubbing."""
    size = log_uniform(rng, 0.06, 0.24)
    region = _ragged(rng, canvas, place, size, rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.7)) * body
    flat = blur(image, rng.uniform(0.015, 0.06) * canvas.pixels_per_unit)
    marks = spectral_noise(
        rng, canvas, exponent=0.3, low=8, high=60, stretch=log_uniform(rng, 1, 20), angle=rng.uniform(0, 3.2)
    )
    shift = rng.uniform(0.0, 0.15) * _visible_sign(rng, image, region)
    return mix(image, flat + shift + (rng.uniform(0, 0.05) * marks)[..., None], region * rng.uniform(0.6, 1)), region


def chip(rng, canvas, image, place, body):
    """A piece broken off at the rim, or out of the surface where there is none: flat faces, each in its own light."""
    unit = canvas.pixels_per_unit
    outside = 1 - body
    rim = np.flatnonzero((blur(outside, 1.5) > 0.15) & (body > 0.5))
    at_rim = len(rim) > 20 and rng.random() < 0.85
    x, y = canvas.coordinates
    if at_rim:
        spot = rim[rng.integers(len(rim))]
        place = np.array([x.flat[spot], y.flat[spot]])
    u, v = x - np.float32(place[0]), y - np.float32(place[1])
    size = log_uniform(rng, 0.02, 0.09)
    inside = np.full(canvas.shape, np.inf, np.float32)
    sides = int(rng.integers(5, 10))
    for angle in np.arange(sides) * (2 * np.pi / sides) + rng.normal(0, 0.35, sides):
        inside = np.minimum(inside, size * rng.uniform(0.55, 1.3) - (np.cos(angle) * u + np.sin(angle) * v))
    shard = smooth_step(inside + 0.08 * size * smooth_noise(rng, canvas, size * 0.4), 0.6 / unit)
    facets = np.zeros(canvas.shape, np.float32)
    for _ in range(rng.integers(1, 4)):
        angle = rng.uniform(0, 6.3)
        facets += np.float32(rng.uniform(0.1, 0.35)) * np.sign(
            np.cos(angle) * u + np.sin(angle) * v + rng.normal(0, size / 3)
        )
    face = blur(image, 0.02 * unit) * rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.1, 1.7)])
    changed = mix(image, face * (1 + 0.6 * facets[..., None]), shard * body)
    if at_rim and rng.random() < 0.8:
        behind = (
            blur(image * outside[..., None], 0.04 * unit) / np.maximum(blur(outside, 0.04 * unit), 0.02)[..., None]
        )
        gone = smooth_step(inside - size * rng.uniform(0, 0.45), 0.6 / unit)
        changed = mix(changed, behind, gone * body)
    return changed, shard * body


def pitting(rng, canvas, image, place, body):
    """Pits and blowholes: small dark openings, one or a few, lit on one side of the rim."""
    unit, light = canvas.pixels_per_unit, rng.uniform(0, 6.3)
    pits = np.zeros(canvas.shape, np.float32)
    for number in range(rng.choice([1, 1, 2, 4, 8])):
        middle = place + (rng.normal(0, 0.06, 2) if number else 0)
        pits = np.maximum(pits, _ragged(rng, canvas, middle, log_uniform(rng, 0.009, 0.05), rng.uniform(0, 0.3), 0.12))
    pits = pits * body
    soft = blur(pits, 0.006 * unit)
    dy, dx = np.gradient(soft)
    slope = (np.cos(light) * dx + np.sin(light) * dy) * unit * 0.01
    changed = mix(image, image * rng.uniform(0.05, 0.6), pits * rng.uniform(0.6, 1))
    return changed + (rng.uniform(0, 1.2) * slope * body)[..., None], np.maximum(pits, soft * body)


_RUST = np.float32(
    [(0.45, 0.22, 0.1), (0.6, 0.33, 0.12), (0.3, 0.17, 0.1), (0.25, 0.5, 0.42), (0.85, 0.84, 0.8), (0.1, 0.1, 0.1)]
)


def corrosion(rng, canvas, image, place, body):
    """Rust, mould or lime: grains and flakes of a few tones, dense in the middle."""
    size = log_uniform(rng, 0.04, 0.22)
    u, v = canvas.rotated(rng.uniform(0, np.pi), place)
    near = 1 - np.hypot(u, v * np.float32(rng.uniform(1, 2))) / size
    grains = spectral_noise(rng, canvas, exponent=rng.uniform(0.4, 1.3), low=3, high=rng.uniform(20, 60))
    region = smooth_step(near + rng.uniform(0.25, 0.7) * grains, rng.uniform(0.1, 0.4)) * (near > -0.4) * body
    tone = _RUST[rng.integers(len(_RUST))] * np.float32(np.exp(rng.normal(0, 0.2)))
    tones = np.clip(tone * (1 + rng.uniform(0.1, 0.5) * smooth_noise(rng, canvas, 0.03))[..., None], 0, 1)
    return mix(image, tones, region * rng.uniform(0.4, 1)), region


def splash(rng, canvas, image, place, body):
    """Dirt, ink or paint: a blot with drops about it, more or less opaque."""
    size = log_uniform(rng, 0.02, 0.12)
    blot = _ragged(rng, canvas, place, size, rng.uniform(0.05, 0.4), rng.uniform(0.08, 0.3))
    for _ in range(rng.integers(0, 9)):
        away = rng.uniform(1.1, 3) * size
        turn = rng.uniform(0, 6.3)
        middle = place + away * np.array([np.cos(turn), np.sin(turn)])
        blot = np.maximum(blot, _ragged(rng, canvas, middle, size * rng.uniform(0.08, 0.35), 0.1, 0.15))
    blot = blot * body
    tone = (
        rng.uniform(0, 1, 3)
        if rng.random() < 0.4
        else np.full(3, rng.choice([0.05, 0.15, 0.9])) + rng.normal(0, 0.05, 3)
    )
    return mix(image, np.broadcast_to(tone.astype(np.float32), image.shape), blot * rng.uniform(0.4, 1)), blot


def soaking(rng, canvas, image, place, body):
    """A stain that has soaked in: tinted, seen through, darker along its border."""
    region = (
        _ragged(rng, canvas, place, log_uniform(rng, 0.05, 0.22), rng.uniform(0.1, 0.5), rng.uniform(0.08, 0.6)) * body
    )
    tint = np.float32(
        1 - rng.uniform(0.1, 0.6) * (np.array([0.6, 0.8, 1.0]) if rng.random() < 0.6 else rng.uniform(0.3, 1, 3))
    )
    border = 4 * region * (1 - region) * np.float32(rng.choice([0, rng.uniform(0.2, 0.8)]))
    return mix(image, image * tint, np.clip(region + border, 0, 1.4)), region


def hair(rng, canvas, image, place, body):
    """A hair, thread or chip of swarf lying on top, curled, with a shadow."""
    steps = 40
    curl = np.cumsum(rng.normal(0, rng.uniform(0.01, 0.12), steps)) + rng.normal(0, 0.05)
    headings = rng.uniform(0, 6.3) + np.cumsum(curl)
    length = log_uniform(rng, 0.08, 0.6)
    points = (
        np.concatenate([np.zeros((1, 2)), np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1), 0)])
        * length
        / steps
    )
    width = log_uniform(rng, 0.0022, 0.008)
    thread = _strokes(canvas, [(points - points[steps // 2] + place, np.full(steps + 1, width))]) * body
    shadow = _shifted(canvas, thread, rng.uniform(0, 6.3), 0.008) * body
    tone = (
        rng.uniform(0, 1, 3)
        if rng.random() < 0.4
        else np.full(3, 0.5 + _visible_sign(rng, image, thread) * rng.uniform(0.25, 0.5))
    )
    changed = image * (1 - rng.choice([0, rng.uniform(0.1, 0.5)]) * shadow[..., None])
    return mix(
        changed, np.broadcast_to(tone.astype(np.float32), image.shape), thread * rng.uniform(0.7, 1)
    ), np.maximum(thread, shadow)


def crease(rng, canvas, image, place, body):
    """A fold or a tear: a long line, light on one side and dark on the other."""
    steps = 10
    fold = _walk(
        rng, rng.uniform(0, 6.3), log_uniform(rng, 0.15, 0.8), rng.uniform(0, 0.08), rng.uniform(0, 0.2), steps
    )
    cover = _strokes(canvas, [(fold - fold[steps // 2] + place, np.full(steps + 1, log_uniform(rng, 0.003, 0.012)))])
    soft = blur(cover, rng.uniform(0.004, 0.02) * canvas.pixels_per_unit)
    dy, dx = np.gradient(soft)
    angle = rng.uniform(0, 6.3)
    slope = np.cos(angle) * dx + np.sin(angle) * dy
    slope = slope / (np.abs(slope).max() + 1e-6)
    return image * (1 + rng.uniform(0.25, 0.8) * (slope * body)[..., None]), np.clip(2 * soft, 0, 1) * body


def scorch(rng, canvas, image, place, body):
    """Burnt: dark in the middle, brown about it, fading out."""
    u, v = canvas.rotated(rng.uniform(0, np.pi), place)
    distance = np.hypot(u, v * np.float32(rng.uniform(1, 1.8))) / log_uniform(rng, 0.04, 0.16)
    distance = distance * (1 + 0.15 * smooth_noise(rng, canvas, 0.05))
    core, halo = smooth_step(0.6 - distance, 0.35) * body, smooth_step(1 - distance, 0.5) * body
    changed = mix(image, image * np.float32([0.6, 0.42, 0.3]), halo * rng.uniform(0.5, 1))
    return mix(changed, np.full(3, rng.uniform(0.03, 0.15), np.float32), core * rng.uniform(0.3, 0.95)), halo


def peeling(rng, canvas, image, place, body):
    """The coating has come off: a sharp ragged edge with a shadow, and what lay beneath."""
    region = _ragged(rng, canvas, place, log_uniform(rng, 0.03, 0.18), rng.uniform(0.3, 0.9), 0.08) * body
    under = rng.uniform(0, 1, 3) if rng.random() < 0.5 else image[body > 0.5].mean(0) * rng.uniform(0.4, 1.7)
    beneath = np.clip(under + (0.04 * spectral_noise(rng, canvas, exponent=0.8))[..., None], 0, 1)
    changed = mix(image, beneath, region)
    rim = np.clip(region - _shifted(canvas, region, rng.uniform(0, 6.3), 0.008), 0, 1)
    return changed * (1 - rng.uniform(0.2, 0.7) * rim[..., None]), region


def fading(rng, canvas, image, place, body):
    """Bleached: colour and contrast paler, softly."""
    region = (
        _ragged(rng, canvas, place, log_uniform(rng, 0.07, 0.25), rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.8)) * body
    )
    grey = image.mean(-1, keepdims=True)
    pale = grey + (image - grey) * rng.uniform(0, 0.7)
    pale = pale + (rng.choice([0.95, 0.5, pale.mean()]) - pale) * rng.uniform(0.25, 0.65)
    return mix(image, pale, region), region


DAMAGE: dict[Callable, float] = {
    fracture: 0.2,
    scoring: 0.14,
    chip: 0.16,
    abrasion: 0.1,
    hair: 0.08,
    pitting: 0.08,
    crease: 0.05,
    corrosion: 0.05,
    splash: 0.04,
    soaking: 0.03,
    peeling: 0.03,
    fading: 0.02,
    scorch: 0.02,
}
"""Every kind of damage and how often it is drawn."""
