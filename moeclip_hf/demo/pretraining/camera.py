"""How a picture reaches the model: light, optics, sensor and file. None of it is an irregularity."""

import io

import numpy as np
from PIL import Image

from .fields import Canvas, blur, smooth_noise


def light(rng: np.random.Generator, canvas: Canvas, image: np.ndarray) -> np.ndarray:
    """Uneven light (a slope, a vignette, a soft shadow, a highlight), then exposure, gamma and range.

    Takes one picture (height, width, 3) or several (n, height, width, 3), all lit alike.
    """
    x, y = canvas.rotated(rng.uniform(0, 2 * np.pi))
    field = np.ones(canvas.shape, np.float32)
    if rng.random() < 0.5:
        field = field + rng.uniform(0.1, 0.9) * x
    if rng.random() < 0.25:
        field = field * (1 - rng.uniform(0.2, 0.9) * (x**2 + y**2))
    if rng.random() < 0.15:
        field = field * (1 + rng.uniform(0.05, 0.2) * smooth_noise(rng, canvas, rng.uniform(0.5, 1)))
    if rng.random() < 0.15:
        soft = rng.uniform(0.04, 0.3)
        field = field * (
            1 - rng.uniform(0.2, 0.6) / (1 + np.exp(-np.clip((x - rng.uniform(-0.4, 0.4)) / soft, -30, 30)))
        )
    image = image * np.maximum(field, 0.05)[..., None]
    if rng.random() < 0.12:
        cx, cy = rng.uniform(-0.4, 0.4, 2)
        spot = np.exp(-((x - cx) ** 2 + ((y - cy) * rng.uniform(0.2, 1)) ** 2) / rng.uniform(0.03, 0.2) ** 2 / 2)
        image = image + rng.uniform(0.1, 0.5) * spot[..., None]
    image = np.clip(image * rng.uniform(0.75, 1.2), 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.4:
        low, high = rng.uniform(0, 0.35), rng.uniform(0.6, 1)
        image = low + image * (high - low)
    return image


def sensor(rng: np.random.Generator, canvas: Canvas, image: np.ndarray) -> np.ndarray:
    """Blur or sharpening, noise and banding."""
    draw = rng.random()
    if draw < 0.3:
        image = blur(image, rng.uniform(0.3, 1.2))
    elif draw < 0.45:
        image = image + rng.uniform(0.3, 1.2) * (image - blur(image, 1.0))
    if rng.random() < 0.5:
        channels = 1 if rng.random() < 0.5 else 3
        sigma = np.exp(rng.uniform(np.log(0.004), np.log(0.06)))
        image = image + sigma * rng.standard_normal((*canvas.shape, channels), dtype=np.float32)
    return image


def develop(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey or colour, JPEG now and then, and the resize to a square: uint8 (size, size, 3) and the mask's (size, size).

    The mask is area-averaged and kept in 0..255, so that a patch's share of it stays exact.
    """
    if rng.random() < 0.38:
        image = np.repeat((image @ np.float32([0.299, 0.587, 0.114]))[..., None], 3, axis=-1)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    if rng.random() < 0.25:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(25, 90)))
        picture = Image.open(buffer)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    cover = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BOX)
    return np.asarray(picture, np.uint8), np.asarray(cover, np.uint8)
