"""Drawing primitives of the procedural benchmark: coordinates, anti-aliased shapes, noise and light.

Every picture is a float32 array `(SIZE, SIZE, 3)` in [0, 1], every shape a coverage array `(SIZE, SIZE)` in [0, 1].
Points are in pixels, measured from the middle of the picture, x to the right and y downwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw


SIZE = 224
"""Side of every picture, in pixels."""

_SUPERSAMPLING = 4

_axis = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
X, Y = np.meshgrid(_axis, _axis)
"""Coordinates of the pixels' centres, each `(SIZE, SIZE)`."""


@dataclass
class Scene:
    """One drawn category before a defect of its surface and before the camera.

    Args:
        image (`np.ndarray` of shape `(SIZE, SIZE, 3)`): The picture.
        region (`np.ndarray` of shape `(SIZE, SIZE)`): Where the object's surface is; defects stay inside.
        behind (`np.ndarray` of shape `(SIZE, SIZE, 3)`): What shows through a hole or beside a chipped edge.
    """

    image: np.ndarray
    region: np.ndarray
    behind: np.ndarray


@dataclass
class Fault:
    """A defect that a category's painter draws itself, since it changes the object's structure.

    Args:
        kind (`str`): Name of the defect.
        rng (`np.random.Generator`):
            Source of the defect's own choices, apart from the painter's, so that the rest of the picture stays as it
            would have been without the defect.
    """

    kind: str
    rng: np.random.Generator


def colour(*channels: float) -> np.ndarray:
    """Returns a colour `(3,)` in [0, 1] from one grey value or from red, green and blue."""
    return np.asarray(channels * 3 if len(channels) == 1 else channels, dtype=np.float32)


def vary(rng: np.random.Generator, base: np.ndarray, amount: float = 0.05) -> np.ndarray:
    """Returns a colour near `base`: one shift of all channels and a smaller one of each."""
    return np.clip(base + rng.normal(0, amount) + rng.normal(0, amount / 2, 3), 0.02, 0.98).astype(np.float32)


def pick(rng: np.random.Generator, colours: list[tuple[float, ...]], amount: float = 0.04) -> np.ndarray:
    """Returns one of the given colours, slightly varied."""
    return vary(rng, colour(*colours[rng.integers(len(colours))]), amount)


def fill(base: np.ndarray) -> np.ndarray:
    """Returns a picture of one colour."""
    return np.broadcast_to(base, (SIZE, SIZE, 3)).astype(np.float32)


def paint(image: np.ndarray, coverage: np.ndarray, paint_colour: np.ndarray) -> np.ndarray:
    """Returns `image` with a colour `(3,)` or another picture laid over it where `coverage` is 1."""
    return image + coverage[..., None] * (paint_colour - image)


def lighten(image: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Returns `image` with its brightness multiplied by `1 + amount`, `amount` of shape `(SIZE, SIZE)`."""
    return image * (1 + amount[..., None])


def rotated(angle: float, x: np.ndarray = X, y: np.ndarray = Y) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates in a frame turned by `angle` (radians)."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def place(points: np.ndarray, centre: tuple[float, float] = (0, 0), angle: float = 0, scale: float = 1) -> np.ndarray:
    """Returns points `(n, 2)` scaled, turned by `angle` (radians) and moved to `centre`."""
    cos, sin = np.cos(angle), np.sin(angle)
    points = np.asarray(points, dtype=np.float64) * scale
    return points @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(centre)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Returns the coverage of a disc."""
    return _near(x, y, radius, lambda u, v: radius - np.hypot(u, v))


def ring(x: float, y: float, radius: float, width: float) -> np.ndarray:
    """Returns the coverage of a circle's line of the given width."""
    return _near(x, y, radius + width, lambda u, v: width / 2 - np.abs(np.hypot(u, v) - radius))


def rounded_box(x: float, y: float, half_width: float, half_height: float, radius: float, angle: float = 0):
    """Returns the coverage of a rectangle with rounded corners."""

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        u, v = rotated(angle, u, v)
        du, dv = np.abs(u) - (half_width - radius), np.abs(v) - (half_height - radius)
        outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
        return radius - outside - np.minimum(np.maximum(du, dv), 0)

    return _near(x, y, float(np.hypot(half_width, half_height)), distance)


def _near(x: float, y: float, reach: float, distance: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns the coverage of a shape that lies within `reach` of a point; the rest of the picture is not computed."""
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    middle = np.array([y, x]) + SIZE / 2
    top, left = np.clip(np.floor(middle - reach - 2), 0, SIZE).astype(int)
    bottom, right = np.clip(np.ceil(middle + reach + 2), 0, SIZE).astype(int)
    here = (slice(top, bottom), slice(left, right))
    coverage[here] = edge(distance(X[here] - np.float32(x), Y[here] - np.float32(y)))
    return coverage


def edge(distance: np.ndarray) -> np.ndarray:
    """Returns the coverage of a shape from each pixel's distance to its edge, positive inside."""
    return np.clip(distance + 0.5, 0, 1).astype(np.float32)


def polygons(shapes: list[np.ndarray]) -> np.ndarray:
    """Returns the joint coverage of filled polygons, each `(n, 2)`."""
    return _draw(lambda pen, at: [pen.polygon(at(shape), fill=255) for shape in shapes])


def lines(strokes: list[np.ndarray], width: float | list[float]) -> np.ndarray:
    """Returns the joint coverage of open lines, each `(n, 2)`, of one width or one width each."""
    widths = width if isinstance(width, list) else [width] * len(strokes)

    def draw(pen: ImageDraw.ImageDraw, at) -> None:
        for stroke, line_width in zip(strokes, widths, strict=True):
            thickness = max(1, round(line_width * _SUPERSAMPLING))
            pen.line(at(stroke), fill=255, width=thickness, joint="curve")

    return _draw(draw)


def _draw(draw) -> np.ndarray:
    big = Image.new("L", (SIZE * _SUPERSAMPLING,) * 2)

    def at(points: np.ndarray) -> list[tuple[float, float]]:
        return [tuple(point) for point in (np.asarray(points) + SIZE / 2) * _SUPERSAMPLING - 0.5]

    draw(ImageDraw.Draw(big), at)
    return np.asarray(big.reduce(_SUPERSAMPLING), dtype=np.float32) / 255


def circle_points(count: int, radius: float | np.ndarray = 1) -> np.ndarray:
    """Returns `count` points `(count, 2)` on a circle, or at one radius each."""
    angles = np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(radius, (-1, 1))


def blob_points(rng: np.random.Generator, radius: float, roughness: float = 0.25, count: int = 28) -> np.ndarray:
    """Returns the outline of an irregular closed shape around the origin, stretched and turned at random."""
    angles = np.arange(count) * 2 * np.pi / count
    radii = np.ones(count)
    for wave in range(2, 7):
        radii += roughness / wave**0.7 * rng.normal() * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    points = circle_points(count, radius * np.clip(radii, 0.35, 1.8))
    stretch = rng.uniform(0.65, 1)
    return place(points * [1, stretch], angle=rng.uniform(0, np.pi))


def noise(rng: np.random.Generator, across: int, down: int | None = None) -> np.ndarray:
    """Returns smooth noise `(SIZE, SIZE)` of mean 0 and standard deviation about 0.7 with so many cells a side."""
    down = across if down is None else down
    grid = rng.standard_normal((down, across), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def fractal_noise(rng: np.random.Generator, cells: int, octaves: int = 4, gain: float = 0.55) -> np.ndarray:
    """Returns a sum of `octaves` of smooth noise `(SIZE, SIZE)`, each twice as fine and `gain` times as strong."""
    return sum(gain**octave * noise(rng, min(cells * 2**octave, SIZE)) for octave in range(octaves))


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Returns `values` `(SIZE, SIZE[, channels])` blurred by a Gaussian of `sigma` pixels, edges repeated."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    values = np.asarray(values, dtype=np.float32)
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if this == axis else (0, 0) for this in range(values.ndim)], "edge")
        values = np.zeros_like(values)
        for start, weight in enumerate(weights):
            window = slice(start, start + SIZE)
            values += weight * (padded[window] if axis == 0 else padded[:, window])
    return values


def relief(height: np.ndarray, direction: float) -> np.ndarray:
    """Returns the shading of a relief lit from `direction` (radians): its slope towards the light."""
    slope_y, slope_x = np.gradient(height)
    return (slope_x * np.cos(direction) + slope_y * np.sin(direction)).astype(np.float32)


def cells(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pitch: float, jitter: float = 0.8):
    """Divides the plane into irregular cells around jittered grid points.

    Returns:
        `tuple`: distance to the nearest point and to the second nearest, in pixels, and the cell's number in
        0 to 4095, each `(SIZE, SIZE)`.
    """
    offsets = ((rng.random((64, 64, 2)) - 0.5) * jitter + 0.5).astype(np.float32)
    column, row = np.floor(u / pitch).astype(np.int32), np.floor(v / pitch).astype(np.int32)
    x, y = u / np.float32(pitch), v / np.float32(pitch)
    nearest = np.full(u.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    number = np.zeros(u.shape, dtype=np.int32)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            i, j = column + across, row + down
            offset = offsets[j & 63, i & 63]
            distance = np.hypot(x - i - offset[..., 0], y - j - offset[..., 1])
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            number = np.where(closer, (j & 63) * 64 + (i & 63), number)
            nearest = np.where(closer, distance, nearest)
    return nearest * pitch, second * pitch, number


def texture_frame(rng: np.random.Generator, tilt: float = 0.25, wobble: float = 2.0):
    """Returns coordinates `u, v` of a flat material that lies slightly turned, shifted and warped, in pixels."""
    u, v = rotated(rng.uniform(-tilt, tilt))
    u = u + np.float32(rng.uniform(-200, 200)) + np.float32(wobble) * noise(rng, 4)
    v = v + np.float32(rng.uniform(-200, 200)) + np.float32(wobble) * noise(rng, 4)
    return u, v


def near_cell(fault: Fault, u: np.ndarray, v: np.ndarray, pitch_u: float, pitch_v: float) -> tuple[int, int]:
    """Returns column and row of a lattice cell well inside the picture, chosen by the fault's own generator."""
    row, column = fault.rng.integers(SIZE // 5, SIZE - SIZE // 5, 2)
    return int(np.floor(u[row, column] / pitch_u)), int(np.floor(v[row, column] / pitch_v))


def tabletop(rng: np.random.Generator) -> np.ndarray:
    """Returns a background for an object: one of several surfaces, in any muted colour, light or dark."""
    base = vary(rng, colour(rng.choice([0.12, 0.25, 0.45, 0.7, 0.88])), 0.06)
    base = np.clip(base + rng.normal(0, 0.05, 3), 0.03, 0.95).astype(np.float32)
    image = fill(base)
    style = rng.integers(4)
    if style == 0:
        return lighten(image, 0.03 * fractal_noise(rng, 6))
    if style == 1:
        u, _ = texture_frame(rng, 1.5)
        return lighten(image, 0.10 * np.sin(u * 2 * np.pi / np.float32(rng.uniform(9, 26))))
    if style == 2:
        u, v = texture_frame(rng, 0.8, 0.5)
        pitch = np.float32(2 * np.pi / rng.uniform(7, 14))
        return lighten(image, 0.07 * np.sin(u * pitch) * np.sin(v * pitch))
    return lighten(image, 0.06 * noise(rng, 5, 110) + 0.03 * noise(rng, 3))


def cast_shadow(image: np.ndarray, shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the background darkened by an object's soft shadow."""
    down, across = rng.integers(2, 7, 2) * rng.choice([-1, 1], 2)
    shifted = np.pad(shape, 8)[8 - down : 8 - down + SIZE, 8 - across : 8 - across + SIZE]
    shadow = blur(shifted, rng.uniform(2, 5))
    return lighten(image, -rng.uniform(0.25, 0.55) * shadow)
