"""One pretraining sample: a procedural picture, where it is irregular, and what it shows. A pure function of its number."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .camera import develop, light, sensor
from .fields import Canvas
from .irregularities import CHANGES, PLAIN_CHANGES, add_irregularity, still_visible
from .products import category_scene, product_scene
from .repeats import repeat_scene
from .scenes import SCENES, material_scene, structural_irregularity
from .textures import HELD_OUT_PATTERNS


IRREGULAR_SHARE_OF_SAMPLES = 0.52


@dataclass(frozen=True)
class Mixture:
    """How often what is drawn.

    `scenes` weighs the kinds of [`SCENES`], `products` random products and the categories of the benchmark's training
    half, `repeats` surfaces of equal marks; all of these together weigh 1. `changes` weighs the kinds of irregularity,
    `damage_share` of which show damage instead. `plain_share` of the things' skins have one colour. `counts` weighs one,
    two, three ... irregularities, and `both_share` is how often some come on top of a structural one. `clear_share` of
    the pictures want irregularities whose mean difference in [0, 1] is at least `clear_contrast`; the others only such as
    can be seen at all. What light has left of a difference counts from `least_contrast` on. `structural_share` of the
    irregular scenes that are built of parts have a structural fault.
    """

    scenes: tuple[float, ...]
    changes: Mapping[Callable, float]
    plain_share: float
    clear_share: float
    clear_contrast: float
    least_contrast: float
    counts: tuple[float, ...] = (0.72, 0.2, 0.08)
    both_share: float = 0.1
    products: tuple[float, float] = (0.0, 0.0)
    repeats: float = 0.0
    structural_share: float = 0.45
    damage_share: float = 0.0


BROAD = Mixture((0.48, 0.28, 0.11, 0.05, 0.08), CHANGES, 0.0, 0.0, 0.0, 0.012)
"""Surfaces above all, irregularities of every strength."""

THINGS = Mixture((0.35, 0.37, 0.12, 0.04, 0.12), PLAIN_CHANGES, 0.55, 0.85, 0.1, 0.03)
"""Things above all, mostly with even skins, and irregularities that can mostly be seen at a glance."""

DENSE = Mixture(
    (0.4, 0.33, 0.12, 0.04, 0.11), PLAIN_CHANGES, 0.45, 0.65, 0.1, 0.025, (0.3, 0.25, 0.2, 0.15, 0.1), both_share=0.6
)
"""Surfaces and things, with several irregularities each, so that every picture has more to learn from."""

PRODUCTS = Mixture(
    (0.22, 0.16, 0.06, 0.02, 0.04),
    PLAIN_CHANGES,
    0.45,
    0.65,
    0.1,
    0.025,
    (0.4, 0.25, 0.15, 0.12, 0.08),
    both_share=0.5,
    products=(0.33, 0.17),
)
"""Products as well, drawn as the benchmark draws its own."""

REPEATS = replace(
    PRODUCTS, scenes=(0.15, 0.1, 0.05, 0.02, 0.03), products=(0.25, 0.28), repeats=0.12, structural_share=0.65
)
"""More of the products, and surfaces of many equal marks."""

DAMAGED = replace(
    REPEATS,
    scenes=(0.18, 0.12, 0.05, 0.02, 0.03),
    products=(0.25, 0.27),
    repeats=0.08,
    counts=(0.55, 0.25, 0.12, 0.08),
    both_share=0.3,
    structural_share=0.4,
    damage_share=0.75,
)
"""Damage as photographs show it, one or a few pieces in a picture."""

STRUCTURAL = replace(
    DAMAGED,
    scenes=(0.04, 0.1, 0.18, 0.02, 0.04),
    products=(0.3, 0.22),
    repeats=0.1,
    both_share=0.15,
    structural_share=0.9,
    clear_share=0.85,
)
"""Above all faults of structure: parts of which one is missing or unlike the others."""

MIXTURES = {
    "broad": BROAD,
    "things": THINGS,
    "dense": DENSE,
    "products": PRODUCTS,
    "repeats": REPEATS,
    "damaged": DAMAGED,
    "structural": STRUCTURAL,
}


def find_mixture(name: str, number: int) -> Mixture:
    """The mixture that a sample is drawn from; "built" draws two of five as "structural" and the others as "damaged"."""
    if name == "built":
        name = "structural" if number % 5 < 2 else "damaged"
    return MIXTURES[name]


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
    mixture: Mixture = BROAD,
) -> Sample:
    """Sample `number` of the stream `seed`.

    An irregularity is tried in `irregular_share` of the samples; where none can be seen, the sample stays regular.
    `held_out` draws the patterns that training never sees.
    """
    rng = np.random.default_rng((seed, number))
    canvas = _random_canvas(rng, size)
    if held_out:
        scene = material_scene(rng, canvas, patterns=HELD_OUT_PATTERNS)
    else:
        kinds = (*SCENES, product_scene, category_scene, repeat_scene)
        weights = (*mixture.scenes, *mixture.products, mixture.repeats)
        scene = kinds[rng.choice(len(kinds), p=weights)](rng, canvas, mixture.plain_share)
        canvas = scene.canvas
    image, mask = scene.image, np.zeros(canvas.shape, bool)
    if rng.random() < irregular_share:
        least = mixture.clear_contrast if mixture.clear_share and rng.random() < mixture.clear_share else 0.0
        if (scene.parts or scene.repaint is not None) and rng.random() < mixture.structural_share:
            change = structural_irregularity(rng, scene, contrast=max(0.05, least))
            if change is not None:
                image, mask = change.image, mask | change.mask
        if not mask.any() or rng.random() < mixture.both_share:
            for _ in range(1 + rng.choice(len(mixture.counts), p=mixture.counts)):
                change = add_irregularity(
                    rng,
                    canvas,
                    image,
                    scene.foreground,
                    changes=mixture.changes,
                    damage_share=mixture.damage_share,
                    contrast=max(0.035, least),
                )
                if change is not None:
                    image, mask = change.image, mask | change.mask
    before, image = light(rng, canvas, np.stack([scene.image, image]))
    if mask.any():
        mask = mask & still_visible(before, image, canvas, mixture.least_contrast)
    twin_rng = copy.deepcopy(rng)
    twin, foreground = develop(twin_rng, sensor(twin_rng, canvas, before), scene.foreground, size)
    picture, cover = develop(rng, sensor(rng, canvas, image), mask, size)
    return Sample(picture, twin, cover, foreground, scene.noun)
