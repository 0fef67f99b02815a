"""One picture of the benchmark: a category's scene, with or without a defect, seen through a simulated camera."""

import zlib

import numpy as np
from PIL import Image

from .canvas import SIZE, Fault, X, Y, blur, fractal_noise, rotated
from .categories import Category
from .surface_defects import SURFACE_DEFECTS


_VISIBLE = 10 / 255
"""Smallest change of a colour channel that counts as part of a defect."""

_PLAIN = 26 / 255
"""A change that one sees at a glance."""

_SMALLEST, _LARGEST = 0.001, 0.2
"""Smallest share of a picture that must change plainly, and the largest that may change; else it is drawn anew."""

_ATTEMPTS = 20
"""How often; the attempt that shows most of those that fit is kept."""


def draw_sample(
    category: Category, seed: int, index: int, defect: str | None = None
) -> tuple[Image.Image, Image.Image]:
    """Draws one picture and its mask.

    The defective scene and the flawless one are drawn from the same random numbers and pass through the same camera;
    the mask holds the pixels in which they visibly differ, tiny gaps closed.

    Args:
        category (`Category`): What to draw.
        seed (`int`): Seed of the whole benchmark.
        index (`int`): Number of the picture within its category; with `seed` and the name it decides everything.
        defect (`str`, *optional*): One of `category.defects`; None draws a flawless object.

    Returns:
        `tuple(Image.Image)`: picture (RGB) and mask (L, 255 where defective), `SIZE` pixels a side.

    Raises:
        ValueError: If the category cannot have the defect.
    """
    if defect is not None and defect not in category.defects:
        raise ValueError(f"`defect` ({defect!r}) must be one of {category.name}'s: {', '.join(category.defects)}.")
    scene = category.paint(_generator(category, seed, index, "scene"), None)
    camera = _Camera(_generator(category, seed, index, "camera"))
    clean = camera.view(scene.image)
    if defect is None:
        return camera.picture(clean), _as_image(np.zeros((SIZE, SIZE)))
    best = (False, 0.0, 0.0)
    for attempt in range(_ATTEMPTS):
        rng = _generator(category, seed, index, f"defect {attempt}")
        if defect in category.structural:
            flawed = category.paint(_generator(category, seed, index, "scene"), Fault(defect, rng)).image
        else:
            flawed = SURFACE_DEFECTS[defect](scene, rng)
        seen = camera.view(flawed)
        difference = np.abs(clean - seen).max(-1)
        visible, plain = (difference > _VISIBLE).mean(), (difference > _PLAIN).mean()
        found = (visible <= _LARGEST, plain, visible)
        if found >= best:
            view, change, best = seen, difference, found
        if visible <= _LARGEST and plain >= _SMALLEST:
            break
    return camera.picture(view), _as_image(~_grow(~_grow(change > _VISIBLE)))  # gaps of up to four pixels closed


def _generator(category: Category, seed: int, index: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(category.name.encode()), index, zlib.crc32(purpose.encode())])


def _grow(mask: np.ndarray, reach: int = 2) -> np.ndarray:
    for axis in (0, 1):
        padded = np.pad(mask, [(reach, reach) if this == axis else (0, 0) for this in range(2)], "edge")
        shifts = range(2 * reach + 1)
        mask = np.any([np.take(padded, range(start, start + SIZE), axis=axis) for start in shifts], axis=0)
    return mask


def _as_image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.asarray(mask, dtype=bool).astype(np.uint8) * 255)


class _Camera:
    """Uneven light, exposure, gamma, colour cast, blur and noise, drawn once: each view is taken under the same."""

    def __init__(self, rng: np.random.Generator):
        across, _ = rotated(rng.uniform(0, 2 * np.pi))
        slope, falloff = rng.uniform(0, 0.2) / (SIZE / 2), rng.uniform(0, 0.125) / (SIZE / 2) ** 2
        light = 1 + np.float32(slope) * across - np.float32(falloff) * (X**2 + Y**2)
        light = light * (1 + np.float32(rng.uniform(0, 0.05)) * fractal_noise(rng, 2, 2))
        exposure = rng.uniform(0.85, 1.12) * (1 + rng.normal(0, 0.03, 3))
        self.light = light[..., None] * exposure.astype(np.float32)
        self.gamma = np.float32(rng.uniform(0.8, 1.2))
        self.sharpness = rng.uniform(0.25, 0.9)
        self.monochrome = rng.random() < 0.15
        grain = rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32)
        grain = grain + 0.5 * rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
        self.grain = np.float32(rng.uniform(0.004, 0.022)) * grain

    def view(self, image: np.ndarray) -> np.ndarray:
        """Returns what the camera sees of a scene's picture, before noise."""
        view = np.clip(image * self.light, 0, 1).astype(np.float32)
        view = blur(view**self.gamma, self.sharpness)
        return np.repeat(view.mean(-1, keepdims=True), 3, axis=-1) if self.monochrome else view

    def picture(self, view: np.ndarray) -> Image.Image:
        """Returns a view with the camera's noise, in 8 bits."""
        return Image.fromarray((np.clip(view + self.grain, 0, 1) * 255 + 0.5).astype(np.uint8))
