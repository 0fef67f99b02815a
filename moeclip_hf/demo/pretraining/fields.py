"""Scalar fields on a picture's canvas: coordinates, noise and a few operations that every drawing module uses."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Canvas:
    """A drawing area in picture units: the square root of the area is 1, the origin lies in the middle.

    Lengths in these units mean the same on every resolution, and a canvas that is not square gives pictures that look
    squeezed once they are resized to a square, as photographs do.
    """

    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def pixels_per_unit(self) -> float:
        """Pixels along one unit of length."""
        return float(np.sqrt(self.height * self.width))

    @property
    def half_size(self) -> tuple[float, float]:
        """Half the width and half the height, in units."""
        return self.width / self.pixels_per_unit / 2, self.height / self.pixels_per_unit / 2

    @cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) of every pixel's middle, each float32 of shape (height, width)."""
        unit = np.float32(self.pixels_per_unit)
        x = (np.arange(self.width, dtype=np.float32) - (self.width - 1) / 2) / unit
        y = (np.arange(self.height, dtype=np.float32) - (self.height - 1) / 2) / unit
        return np.broadcast_to(x, self.shape), np.broadcast_to(y[:, None], self.shape)

    def rotated(self, angle: float, centre: tuple[float, float] = (0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates in axes turned by `angle` radians about `centre`."""
        x, y = self.coordinates
        x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cos * x + sin * y, cos * y - sin * x


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between the two; each doubling within the range is as likely as another."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def spectral_noise(
    rng: np.random.Generator,
    canvas: Canvas,
    *,
    exponent: float = 1.0,
    low: float = 0.0,
    high: float = np.inf,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """Gaussian noise with amplitude spectrum f ** -exponent between `low` and `high` cycles per unit.

    `stretch` > 1 draws it out along `angle`. Float32 (height, width), mean 0, standard deviation 1.
    """
    unit = canvas.pixels_per_unit
    fx = np.fft.rfftfreq(canvas.width, 1 / unit)[None, :]
    fy = np.fft.fftfreq(canvas.height, 1 / unit)[:, None]
    along, across = np.cos(angle) * fx + np.sin(angle) * fy, np.cos(angle) * fy - np.sin(angle) * fx
    radius = np.sqrt((along * stretch) ** 2 + across**2)
    amplitude = np.maximum(radius, 0.7) ** -exponent * (radius >= low) * (radius <= high)
    amplitude[0, 0] = 0
    spectrum = np.fft.rfft2(rng.standard_normal(canvas.shape, dtype=np.float32)) * amplitude
    noise = np.fft.irfft2(spectrum, s=canvas.shape)
    return (noise / (noise.std() + 1e-8)).astype(np.float32)


def smooth_noise(rng: np.random.Generator, canvas: Canvas, scale: float) -> np.ndarray:
    """Noise whose features are about `scale` units wide; mean 0, standard deviation 1."""
    return spectral_noise(rng, canvas, exponent=1.5, high=1 / scale)


def rescale(field: np.ndarray) -> np.ndarray:
    """The field mapped linearly so that its 1st and 99th percentiles become 0 and 1, then clipped to [0, 1]."""
    sample = field[::3, ::3]
    low, high = np.percentile(sample, (1, 99))
    return np.clip((field - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def smooth_step(field: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, smooth in between."""
    t = np.clip(field / (2 * max(width, 1e-6)) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def mix(image: np.ndarray, other: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """The first picture (height, width, 3), or the other where the amount (height, width) is 1."""
    return image + amount[..., None] * (other - image)


def warp(image: np.ndarray, shift_x: np.ndarray, shift_y: np.ndarray) -> np.ndarray:
    """The image read at every pixel's place plus a shift in pixels: bilinear, mirrored at the border."""
    height, width = image.shape[:2]
    places = np.stack(
        [np.arange(height, dtype=np.float32)[:, None] + shift_y, np.arange(width, dtype=np.float32)[None] + shift_x]
    )
    if image.ndim == 2:
        return ndimage.map_coordinates(image, places, order=1, mode="mirror")
    channels = [ndimage.map_coordinates(image[..., c], places, order=1, mode="mirror") for c in range(image.shape[2])]
    return np.stack(channels, axis=-1)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the first two axes, sigma in pixels."""
    sigmas = (sigma, sigma) + (0,) * (image.ndim - 2)
    return ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=2.5)


def relief(height: np.ndarray, angle: float, strength: float) -> np.ndarray:
    """Shading in about [-1, 1] of a height field lit from `angle`: a squashed directional derivative."""
    dy, dx = np.gradient(height)
    slope = np.cos(angle) * dx + np.sin(angle) * dy
    return np.tanh(strength * slope / (slope.std() + 1e-6)).astype(np.float32)


def hash_unit(*keys: np.ndarray, seed: int) -> np.ndarray:
    """A fixed pseudo-random number in [0, 1) for every combination of integer keys: one value per cell of a pattern."""
    state = np.full(np.broadcast_shapes(*(key.shape for key in keys)), seed & 0x7FFFFFFF, dtype=np.uint32)
    for key in keys:
        state = (state ^ key.astype(np.int64).astype(np.uint32)) * np.uint32(0x9E3779B1)
        state ^= state >> np.uint32(15)
    state *= np.uint32(0x85EBCA77)
    state ^= state >> np.uint32(13)
    return (state >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)
