"""Generic irregularities: something in the picture departs from the rest, and a mask says where.

A region (where) and a change (what) are drawn independently of each other, so that every combination occurs. None of
these imitates a particular kind of damage; those of `damage` do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .damage import DAMAGE
from .fields import Canvas, blur, log_uniform, mix, smooth_noise, smooth_step, spectral_noise, warp
from .textures import draw_material, random_colour


@dataclass(frozen=True)
class Irregularity:
    """A changed picture (height, width, 3) and the boolean mask (height, width) of what is irregular in it."""

    image: np.ndarray
    mask: np.ndarray


# ---------------------------------------------------------------- regions: (rng, canvas, x, y) -> softness in [0, 1]


def patchy_region(rng, canvas, x, y):
    """A ragged spot: noise cut off by distance."""
    size = log_uniform(rng, 0.04, 0.28)
    u, v = canvas.rotated(rng.uniform(0, np.pi), (x, y))
    distance = np.hypot(u, v * rng.uniform(1, 2.5)) / size
    field = 1 - distance + rng.uniform(0.1, 0.5) * smooth_noise(rng, canvas, size * rng.uniform(0.3, 1))
    return smooth_step(field, rng.choice([0.08, 0.08, rng.uniform(0.1, 0.8)]))


def round_region(rng, canvas, x, y):
    """An ellipse, sharp or soft."""
    size = log_uniform(rng, 0.03, 0.2)
    u, v = canvas.rotated(rng.uniform(0, np.pi), (x, y))
    distance = np.hypot(u, v * rng.uniform(1, 3)) / size
    return smooth_step(1 - distance, rng.choice([0.08, rng.uniform(0.1, 0.9)]))


def angular_region(rng, canvas, x, y):
    """A convex shard of three to six straight sides."""
    u, v = canvas.coordinates
    size = log_uniform(rng, 0.03, 0.2)
    inside = np.full(canvas.shape, np.inf, np.float32)
    for angle in np.arange(sides := rng.integers(3, 7)) * (2 * np.pi / sides) + rng.normal(0, 0.3, sides):
        reach = size * rng.uniform(0.4, 1.2)
        inside = np.minimum(inside, reach - (np.cos(angle) * (u - x) + np.sin(angle) * (v - y)))
    return smooth_step(inside, 0.6 / canvas.pixels_per_unit)


def line_region(rng, canvas, x, y):
    """A thin wandering line."""
    length, pieces = log_uniform(rng, 0.12, 0.9), int(rng.integers(2, 9))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.choice([0.05, 0.3, 0.7]), pieces))
    points = np.concatenate([[[0, 0]], np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0)])
    points = (points - points[len(points) // 2]) * length / pieces + [x, y]
    width = log_uniform(rng, 0.004, 0.022)
    return _polyline(canvas, points, width, taper=rng.random() < 0.5)


def _polyline(canvas: Canvas, points: np.ndarray, width: float, taper: bool) -> np.ndarray:
    u, v = canvas.coordinates
    best = np.full(canvas.shape, -np.inf, np.float32)
    steps = len(points) - 1
    for number in range(steps):
        start, stop = points[number], points[number + 1]
        delta = stop - start
        along = ((u - start[0]) * delta[0] + (v - start[1]) * delta[1]) / max(float(delta @ delta), 1e-9)
        along = np.clip(along, 0, 1)
        distance = np.hypot(u - start[0] - along * delta[0], v - start[1] - along * delta[1])
        thin = width * (1 - 0.8 * np.abs((number + along) / steps * 2 - 1)) if taper else width
        best = np.maximum(best, thin - distance)
    return smooth_step(best, 0.7 / canvas.pixels_per_unit).astype(np.float32)


def bundle_region(rng, canvas, x, y):
    """Several lines side by side or crossing."""
    spread = rng.uniform(0.01, 0.12)
    region = np.zeros(canvas.shape, np.float32)
    angle = rng.uniform(0, np.pi)
    for _ in range(rng.integers(2, 6)):
        turn = angle + rng.normal(0, rng.choice([0.05, 0.8]))
        half = rng.uniform(0.04, 0.2) * np.array([np.cos(turn), np.sin(turn)])
        middle = np.array([x, y]) + rng.normal(0, spread, 2)
        ends = np.stack([middle - half, middle + rng.normal(0, 0.02, 2), middle + half])
        region = np.maximum(region, _polyline(canvas, ends, log_uniform(rng, 0.004, 0.014), taper=True))
    return region


def scatter_region(rng, canvas, x, y):
    """A loose group of small spots."""
    u, v = canvas.coordinates
    spread = rng.uniform(0.04, 0.2)
    region = np.zeros(canvas.shape, np.float32)
    for _ in range(rng.integers(3, 14)):
        cx, cy = np.array([x, y]) + rng.normal(0, spread, 2)
        size = log_uniform(rng, 0.01, 0.035)
        region = np.maximum(region, smooth_step(size - np.hypot(u - cx, v - cy), 0.7 / canvas.pixels_per_unit))
    return region


def band_region(rng, canvas, x, y):
    """A strip across the picture or across a part of it."""
    u, v = canvas.rotated(rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]), (x, y))
    half, length = log_uniform(rng, 0.015, 0.12), rng.choice([2.0, rng.uniform(0.1, 0.5)])
    inside = np.minimum(half - np.abs(v), length - np.abs(u))
    return smooth_step(inside + 0.01 * smooth_noise(rng, canvas, 0.2), rng.choice([0.008, 0.04]))


REGIONS = {
    patchy_region: 0.26,
    round_region: 0.16,
    angular_region: 0.1,
    line_region: 0.2,
    bundle_region: 0.08,
    scatter_region: 0.1,
    band_region: 0.1,
}

# ---------------------------------------------------------------- changes: (rng, canvas, image, region) -> new picture


def tone_change(rng, canvas, image, region):
    """Darker or lighter, keeping what lies beneath."""
    factor = rng.choice([rng.uniform(0.15, 0.8), rng.uniform(1.25, 2.5)])
    return mix(image, image * factor + (0.05 if factor > 1 else 0), region)


def colour_change(rng, canvas, image, region):
    """Tinted or covered by one colour."""
    return mix(image, np.broadcast_to(random_colour(rng), image.shape), region * rng.uniform(0.25, 1))


def material_change(rng, canvas, image, region):
    """Another material shows."""
    other, _ = draw_material(rng, canvas)
    if rng.random() < 0.6:
        inside = region > 0.3
        if inside.any():
            shift = image[inside].mean(0) + rng.normal(0, 0.15, 3) - other[inside].mean(0)
            other = other + shift.astype(np.float32)
    return mix(image, other, region * rng.uniform(0.5, 1))


def transplant(rng, canvas, image, region):
    """Another place of the same picture, often turned or mirrored."""
    other = image
    if rng.random() < 0.5:
        other = other[::-1] if rng.random() < 0.5 else other[:, ::-1]
    if rng.random() < 0.3 and canvas.height == canvas.width:
        other = np.swapaxes(other, 0, 1)
    height, width = canvas.shape
    shift = (rng.integers(height // 6, height - height // 6), rng.integers(width // 6, width - width // 6))
    other = np.roll(other, shift, (0, 1))
    return mix(image, other, region)


def smear(rng, canvas, image, region):
    """Detail lost: blurred along one or both directions."""
    sigma = rng.uniform(0.01, 0.06) * canvas.pixels_per_unit
    return mix(image, blur(image, sigma), region)


def roughening(rng, canvas, image, region):
    """Detail added: noise of some fineness."""
    noise = spectral_noise(rng, canvas, exponent=0.3, low=5, high=rng.uniform(15, 50))
    return mix(image, image + rng.uniform(0.08, 0.35) * noise[..., None], region)


def dent(rng, canvas, image, region):
    """A pit or a bump: a lit and a shaded side."""
    height = blur(region, rng.uniform(0.005, 0.03) * canvas.pixels_per_unit)
    dy, dx = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * dx + np.sin(angle) * dy
    slope = slope / (np.abs(slope).max() + 1e-6)
    floor = rng.choice([0, rng.uniform(-0.35, 0.2)])
    return image + (rng.uniform(0.15, 0.6) * slope + floor * height)[..., None]


def distortion(rng, canvas, image, region):
    """The pattern bends."""
    unit = canvas.pixels_per_unit
    amount = rng.uniform(0.02, 0.09) * unit
    soft = blur(region, 0.02 * unit)
    return warp(
        image,
        soft * amount * smooth_noise(rng, canvas, rng.uniform(0.1, 0.3)),
        soft * amount * smooth_noise(rng, canvas, rng.uniform(0.1, 0.3)),
    )


def slip(rng, canvas, image, region):
    """The pattern is shifted or turned as a piece."""
    unit = canvas.pixels_per_unit
    inside = region > 0.5
    if not inside.any():
        return image
    x, y = canvas.coordinates
    cx, cy = float(x[inside].mean()), float(y[inside].mean())
    turn = rng.choice([0, rng.uniform(0.3, 1.6) * rng.choice([-1, 1])])
    dx, dy = rng.normal(0, 0.06, 2)
    u, v = x - cx, y - cy
    shift_x = (np.cos(turn) * u - np.sin(turn) * v - u + dx) * unit
    shift_y = (np.sin(turn) * u + np.cos(turn) * v - v + dy) * unit
    return mix(image, warp(image, shift_x, shift_y), region)


def contrast_change(rng, canvas, image, region):
    """The pattern fades, grows stronger or turns into its negative."""
    inside = region > 0.3
    mean = image[inside].mean(0) if inside.any() else image.mean((0, 1))
    factor = rng.choice([rng.uniform(-0.8, 0.5), rng.uniform(1.6, 3)])
    return mix(image, mean + (image - mean) * factor, region)


def rimmed_spot(rng, canvas, image, region):
    """A spot whose rim differs from its middle."""
    rim = np.clip(4 * region * (1 - region), 0, 1) if region.max() > 0.9 else region
    soft = blur(region, 0.012 * canvas.pixels_per_unit)
    rim = np.maximum(rim, np.clip(4 * soft * (1 - soft), 0, 1))
    changed = mix(image, np.broadcast_to(random_colour(rng), image.shape), region * rng.uniform(0, 0.6))
    return mix(changed, np.broadcast_to(random_colour(rng), image.shape), rim * rng.uniform(0.3, 0.9))


CHANGES = {
    tone_change: 0.2,
    colour_change: 0.15,
    material_change: 0.14,
    transplant: 0.12,
    smear: 0.05,
    roughening: 0.05,
    dent: 0.1,
    distortion: 0.06,
    slip: 0.05,
    contrast_change: 0.04,
    rimmed_spot: 0.04,
}
"""Every kind of change and how often it is drawn."""

PLAIN_CHANGES = {
    tone_change: 0.24,
    colour_change: 0.22,
    material_change: 0.12,
    transplant: 0.05,
    smear: 0.04,
    roughening: 0.05,
    dent: 0.12,
    distortion: 0.03,
    slip: 0.03,
    contrast_change: 0.03,
    rimmed_spot: 0.07,
}
"""The same, with more of those that show on an even skin."""


def _choose(rng: np.random.Generator, table: Mapping[Callable, float]) -> Callable:
    weights = np.array(list(table.values()))
    return list(table)[rng.choice(len(table), p=weights / weights.sum())]


def visible_mask(
    before: np.ndarray, after: np.ndarray, region: np.ndarray, canvas: Canvas, threshold: float = 0.035
) -> np.ndarray | None:
    """Where a change can be seen: inside the region, with its gaps closed; None if it hardly shows anywhere.

    Single pixels of a changed region may happen to look as before, so the difference is looked at with a little blur.
    """
    difference = np.abs(after - before).mean(-1)
    sigma = 0.012 * canvas.pixels_per_unit
    spread = blur(difference, sigma) if sigma > 0.3 else difference
    mask = (region > 0.25) & ((spread > threshold * 0.5) | (difference > threshold))
    if mask.sum() < 0.0012 * mask.size or difference[mask].mean() < threshold:
        return None
    return mask


def still_visible(before: np.ndarray, after: np.ndarray, canvas: Canvas, threshold: float) -> np.ndarray:
    """Where two pictures differ once light has been applied: glare and darkness hide what was marked before."""
    return blur(np.abs(after - before).mean(-1), 0.012 * canvas.pixels_per_unit) > threshold


def add_irregularity(
    rng: np.random.Generator,
    canvas: Canvas,
    image: np.ndarray,
    allowed: np.ndarray,
    *,
    changes: Mapping[Callable, float] = CHANGES,
    damage_share: float = 0.0,
    contrast: float = 0.035,
    tries: int = 4,
) -> Irregularity | None:
    """Change the picture somewhere inside `allowed` (bool (height, width)); None when no try can be seen.

    `changes` weighs the kinds of change, instead of which `damage_share` show damage. `contrast` is the mean difference
    in [0, 1] from which on one counts as seen.
    """
    places = np.flatnonzero(allowed)
    if not len(places):
        return None
    x, y = canvas.coordinates
    body = allowed.astype(np.float32)
    for _ in range(tries):
        number = places[rng.integers(len(places))]
        place = np.array([x.flat[number], y.flat[number]])
        if damage_share and rng.random() < damage_share:
            changed, reach = _choose(rng, DAMAGE)(rng, canvas, image, place, body)
        else:
            changed, reach = _change_a_region(rng, canvas, image, place, body, changes)
        changed = np.clip(changed, 0, 1).astype(np.float32)
        mask = visible_mask(image, changed, np.minimum(reach * 2, 1), canvas, contrast)
        if mask is not None and mask.mean() < 0.4:
            return Irregularity(changed, mask)
    return None


def _change_a_region(
    rng: np.random.Generator,
    canvas: Canvas,
    image: np.ndarray,
    place: np.ndarray,
    body: np.ndarray,
    changes: Mapping[Callable, float],
) -> tuple[np.ndarray, np.ndarray]:
    """The picture with one change in one region about `place`, and where it may differ, a little beyond that region."""
    draw_region, change = _choose(rng, REGIONS), _choose(rng, changes)
    region = draw_region(rng, canvas, float(place[0]), float(place[1])).astype(np.float32) * body
    if change is not dent:
        region = region * np.float32(rng.choice([1, 1, rng.uniform(0.4, 1)]))
    reach = blur(region, 0.02 * canvas.pixels_per_unit) if change in (dent, distortion, rimmed_spot) else region
    return change(rng, canvas, image, region), reach
