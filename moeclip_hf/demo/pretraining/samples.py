"""One pretraining sample: a procedural picture, where it is irregular, and what it shows. A pure function of its number."""

import copy
from dataclasses import dataclass

import numpy as np

from .camera import develop, light, sensor
from .fields import Canvas
from .irregularities import add_irregularity, still_visible
from .scenes import material_scene, random_scene, structural_irregularity
from .textures import HELD_OUT_PATTERNS


IRREGULAR_SHARE_OF_SAMPLES = 0.52


@dataclass(frozen=True)
class Sample:
    """A picture and what is known of it.

    `image` uint8 (size, size, 3); `twin` the same picture without its irregularities, down to the noise; `mask` uint8
    (size, size), 255 where irregular; `foreground` alike; `noun` names what is seen.
    """

    image: np.ndarray
    twin: np.ndarray
    mask: np.ndarray
    foreground: np.ndarray
    noun: str


def _random_canvas(rng: np.random.Generator, size: int) -> Canvas:
    """Mostly the size asked for; also finer (to be reduced), coarser (to be enlarged) and not square."""
    side = size * rng.choice([0.6, 1.0, 1.0, 1.0, 1.5])
    squeeze = np.exp(rng.choice([0.0, 0.0, rng.uniform(-0.5, 0.5)]))
    return Canvas(int(side / np.sqrt(squeeze)), int(side * np.sqrt(squeeze)))


def draw_sample(
    seed: int,
    number: int,
    size: int = 112,
    irregular_share: float = IRREGULAR_SHARE_OF_SAMPLES,
    held_out: bool = False,
) -> Sample:
    """Sample `number` of the stream `seed`.

    An irregularity is tried in `irregular_share` of the samples; where none can be seen, the sample stays regular.
    `held_out` draws the patterns that training never sees.
    """
    rng = np.random.default_rng((seed, number))
    canvas = _random_canvas(rng, size)
    scene = material_scene(rng, canvas, HELD_OUT_PATTERNS) if held_out else random_scene(rng, canvas)
    image, mask = scene.image, np.zeros(canvas.shape, bool)
    if rng.random() < irregular_share:
        if scene.parts and rng.random() < 0.45:
            change = structural_irregularity(rng, scene)
            if change is not None:
                image, mask = change.image, mask | change.mask
        if not mask.any() or rng.random() < 0.1:
            for _ in range(rng.choice([1, 2, 3], p=[0.72, 0.2, 0.08])):
                change = add_irregularity(rng, canvas, image, scene.foreground)
                if change is not None:
                    image, mask = change.image, mask | change.mask
    before, image = light(rng, canvas, np.stack([scene.image, image]))
    if mask.any():
        mask = mask & still_visible(before, image, canvas)
    twin_rng = copy.deepcopy(rng)
    twin, foreground = develop(twin_rng, sensor(twin_rng, canvas, before), scene.foreground, size)
    picture, cover = develop(rng, sensor(rng, canvas, image), mask, size)
    return Sample(picture, twin, cover, foreground, scene.noun)
