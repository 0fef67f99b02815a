"""Materials: patterns in [0, 1] drawn by formulas, and their colouring.

Every pattern is a function `(rng, canvas) -> float32 (height, width)`; `PATTERNS` lists them with the nouns that may
name them. `draw_material` mixes, shades and colours them.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from .fields import Canvas, hash_unit, log_uniform, relief, rescale, smooth_noise, smooth_step, spectral_noise


def _turned(rng: np.random.Generator, canvas: Canvas, wobble: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Axes along a random direction (often upright), sometimes slightly wavy."""
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    x, y = canvas.rotated(angle)
    if rng.random() < 0.4:
        amount = np.float32(wobble * rng.uniform(0.1, 1))
        x = x + amount * smooth_noise(rng, canvas, 0.3)
        y = y + amount * smooth_noise(rng, canvas, 0.3)
    return x, y


def _wave(phase: np.ndarray, sharpness: float) -> np.ndarray:
    """A wave of period 1 in [0, 1], from a sine (sharpness near 0) to nearly square (1)."""
    sine = np.sin(2 * np.pi * phase)
    return 0.5 + 0.5 * np.tanh(sine * (0.3 + 6 * sharpness)) / np.tanh(0.3 + 6 * sharpness)


def cloud(rng, canvas):
    """1/f noise, from smooth to rough."""
    return rescale(spectral_noise(rng, canvas, exponent=rng.uniform(0.6, 2.2), stretch=log_uniform(rng, 1, 3)))


def grain(rng, canvas):
    """Fine noise of one size."""
    size = rng.uniform(8, 50)
    return rescale(spectral_noise(rng, canvas, exponent=0.2, low=size * 0.4, high=size))


def brushed(rng, canvas):
    """Noise drawn out along one direction."""
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    return rescale(
        spectral_noise(rng, canvas, exponent=rng.uniform(0.3, 1.0), stretch=log_uniform(rng, 8, 60), angle=angle)
    )


def stripes(rng, canvas):
    """Parallel bands, of one or two widths."""
    x, _ = _turned(rng, canvas)
    frequency = log_uniform(rng, 2.5, 26)
    bands = _wave(x * frequency + rng.random(), rng.random())
    if rng.random() < 0.3:
        bands = 0.6 * bands + 0.4 * _wave(x * frequency * rng.integers(2, 4) + rng.random(), rng.random())
    return bands.astype(np.float32)


def twill(rng, canvas):
    """Threads that pass over two and under one, so that diagonal ribs appear."""
    x, y = _turned(rng, canvas, 0.02)
    fx = log_uniform(rng, 6, 24)
    u, v = x * fx + rng.random(), y * fx * rng.choice([1, rng.uniform(0.7, 1.5)]) + rng.random()
    over = (np.floor(u) + np.floor(v)) % 3 > 0
    thread_u = np.abs(np.sin(np.pi * u)) ** rng.uniform(0.4, 1.2)
    thread_v = np.abs(np.sin(np.pi * v)) ** rng.uniform(0.4, 1.2)
    return np.where(over, thread_u, thread_v * rng.uniform(0.4, 0.9)).astype(np.float32)


def lattice(rng, canvas):
    """Crossing bars with openings between them."""
    x, y = _turned(rng, canvas, 0.015)
    frequency = log_uniform(rng, 3, 15)
    skew = rng.choice([0, 0, rng.uniform(-0.6, 0.6)])
    u, v = (x + skew * y) * frequency + rng.random(), y * frequency * rng.choice([1, rng.uniform(0.5, 2)])
    bar = rng.uniform(0.08, 0.3)
    distance = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v)))
    return smooth_step(bar - distance, 0.06).astype(np.float32)


def paving(rng, canvas):
    """Laid blocks with joints; every block has its own tone."""
    x, y = _turned(rng, canvas, 0.01)
    frequency = log_uniform(rng, 2, 9)
    row = np.floor(y * frequency + 100.3)
    length = rng.choice([2, 3])
    u = x * frequency / length + 100.7 + row * rng.choice([0, 0.5, 1 / 3])
    v = y * frequency + 100.3
    joint = rng.uniform(0.02, 0.08)
    edge = np.minimum(np.abs(u - np.round(u)) * length, np.abs(v - np.round(v)))
    tone = hash_unit(np.floor(u), row, seed=int(rng.integers(2**31)))
    tone = 0.55 + rng.choice([0.0, 0.1, 0.45]) * (tone - 0.5) * 2
    return (
        tone * smooth_step(edge - joint, 0.03) + rng.choice([0, 1]) * (1 - smooth_step(edge - joint, 0.03))
    ).astype(np.float32)


def growth_rings(rng, canvas):
    """Long drawn-out rings with fine streaks."""
    angle = rng.choice([0, np.pi / 2])
    x, y = canvas.rotated(angle)
    bend = smooth_noise(rng, canvas, 0.5) * rng.uniform(0.01, 0.06)
    radius = np.hypot((x - rng.uniform(-1, 1)) * rng.uniform(0.03, 0.25), y - rng.uniform(-0.8, 0.8)) + bend
    lines = _wave(radius * log_uniform(rng, 5, 22), rng.uniform(0, 0.5))
    streaks = rescale(spectral_noise(rng, canvas, exponent=0.6, stretch=rng.uniform(10, 40), angle=angle))
    mix = rng.uniform(0.3, 0.8)
    return (mix * lines + (1 - mix) * streaks).astype(np.float32)


def contours(rng, canvas):
    """Sharp bands along the level lines of a smooth field."""
    field = spectral_noise(rng, canvas, exponent=rng.uniform(2, 3), stretch=log_uniform(rng, 1, 3))
    bands = _wave(field * rng.uniform(0.6, 2.5) + rng.random(), rng.random())
    mix = rng.uniform(0.5, 1)
    return (mix * bands + (1 - mix) * rescale(field)).astype(np.float32)


def _cell_distances(rng, canvas, count, jitter=1.0):
    """Distances to the nearest and second nearest of jittered grid points (in cell widths), and the nearest's number."""
    x, y = _turned(rng, canvas, 0.02)
    u, v = x * count + 200, y * count + 200
    seed = int(rng.integers(2**31))
    iu, iv = np.floor(u), np.floor(v)
    first = np.full(canvas.shape, 9, np.float32)
    second = first.copy()
    owner = np.zeros(canvas.shape, np.float32)
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            cu, cv = iu + du, iv + dv
            px = cu + 0.5 + jitter * (hash_unit(cu, cv, seed=seed) - 0.5)
            py = cv + 0.5 + jitter * (hash_unit(cu, cv, seed=seed + 1) - 0.5)
            distance = np.hypot(u - px, v - py)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            owner = np.where(nearer, hash_unit(cu, cv, seed=seed + 2), owner)
            first = np.where(nearer, distance, first)
    return first, second, owner


def cells(rng, canvas):
    """Cells with borders, flat or toned."""
    first, second, owner = _cell_distances(rng, canvas, log_uniform(rng, 4, 18), rng.uniform(0.4, 1))
    border = smooth_step(second - first - rng.uniform(0.04, 0.15), 0.05)
    tone = 0.5 + rng.choice([0.15, 0.8]) * (owner - 0.5)
    return (tone * border if rng.random() < 0.6 else 1 - border * tone).astype(np.float32)


def hammered(rng, canvas):
    """Even dimples of one size, seen in raking light."""
    size = log_uniform(rng, 6, 25)
    dimples = spectral_noise(rng, canvas, exponent=0.5, low=size * 0.5, high=size)
    return (0.5 + 0.5 * relief(dimples, rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.2))).astype(np.float32)


def flecks(rng, canvas):
    """Irregular specks of a few tones on a ground."""
    size = log_uniform(rng, 5, 30)
    field = spectral_noise(rng, canvas, exponent=0.3, low=size * 0.3, high=size)
    dark = smooth_step(field - rng.uniform(0.5, 1.8), 0.25)
    other = spectral_noise(rng, canvas, exponent=0.3, low=size * 0.3, high=size * 1.5)
    light = smooth_step(other - rng.uniform(0.5, 1.8), 0.25) * rng.uniform(-0.4, 0.5)
    return np.clip(0.5 - 0.5 * dark * rng.choice([-1, 1]) + light, 0, 1).astype(np.float32)


def fibres(rng, canvas):
    """Tangled short lines of many directions."""
    layers = [
        spectral_noise(rng, canvas, exponent=0.3, low=4, stretch=rng.uniform(5, 15), angle=angle)
        for angle in rng.uniform(0, np.pi, 4)
    ]
    return rescale(np.max(layers, axis=0) if rng.random() < 0.5 else np.sum(layers, axis=0))


def motifs(rng, canvas):
    """Diamonds, squares or four-pointed stars in a regular array."""
    x, y = _turned(rng, canvas, 0.01)
    frequency = log_uniform(rng, 3, 16)
    u, v = x * frequency + rng.random(), y * frequency * rng.choice([1, 1.1547])
    u = u + 0.5 * (np.round(v) % 2) * rng.integers(0, 2)
    power = rng.choice([0.6, 1.0, 6.0])
    du, dv = np.abs(u - np.round(u)), np.abs(v - np.round(v))
    distance = (du**power + dv**power + 1e-9) ** (1 / power)
    return smooth_step(rng.uniform(0.2, 0.42) - distance, rng.uniform(0.04, 0.15)).astype(np.float32)


def chequers(rng, canvas):
    """A board of squares in two tones."""
    x, y = _turned(rng, canvas, 0.015)
    frequency = log_uniform(rng, 2, 10)
    sharpness = rng.uniform(0.4, 1)
    a, b = _wave(x * frequency + rng.random(), sharpness), _wave(y * frequency + rng.random(), sharpness)
    return (a + b - 2 * a * b).astype(np.float32)


def ripples(rng, canvas):
    """Uneven waves of about one length and direction."""
    frequency = log_uniform(rng, 4, 22)
    angle = rng.uniform(0, np.pi)
    noise = spectral_noise(
        rng, canvas, exponent=0, low=frequency * 0.7, high=frequency * 1.3, stretch=rng.uniform(1, 6), angle=angle
    )
    return rescale(noise)


def plain(rng, canvas):
    """Nearly even tone."""
    return (0.5 + 0.05 * smooth_noise(rng, canvas, rng.uniform(0.1, 0.6))).astype(np.float32)


def maze(rng, canvas):
    """Winding bands of even width."""
    frequency = log_uniform(rng, 5, 20)
    noise = spectral_noise(rng, canvas, exponent=0, low=frequency * 0.85, high=frequency * 1.15)
    return smooth_step(noise, rng.uniform(0.2, 1)).astype(np.float32)


def chevrons(rng, canvas):
    """Zigzag bands."""
    x, y = _turned(rng, canvas, 0.01)
    frequency = log_uniform(rng, 3, 14)
    fold = np.abs((x * frequency * rng.uniform(0.4, 1)) % 1 - 0.5) * rng.uniform(0.6, 2)
    return _wave(y * frequency + fold, rng.random()).astype(np.float32)


def shingles(rng, canvas):
    """Overlapping rounded plates in rows."""
    x, y = _turned(rng, canvas, 0.01)
    frequency = log_uniform(rng, 3, 12)
    v = y * frequency + 100
    row = np.floor(v)
    u = x * frequency + 0.5 * (row % 2) + 100
    local = np.hypot((u - np.floor(u)) - 0.5, (v - row) * 0.9)
    tone = hash_unit(np.floor(u), row, seed=int(rng.integers(2**31))) * rng.choice([0.1, 0.5])
    return np.clip((1 - local) * 0.7 + tone * 0.5, 0, 1).astype(np.float32)


def honeycomb(rng, canvas):
    """Regular six-sided cells."""
    first, second, owner = _cell_distances(rng, canvas, log_uniform(rng, 4, 14), 0.0)
    border = smooth_step(second - first - rng.uniform(0.08, 0.25), 0.05)
    return (border * (0.8 + rng.choice([0, 0.2]) * owner)).astype(np.float32)


def loops(rng, canvas):
    """Rows of v-shaped stitches."""
    x, y = _turned(rng, canvas, 0.02)
    frequency = log_uniform(rng, 5, 16)
    u = x * frequency + 100
    fold = np.abs(u - np.floor(u) - 0.5)
    stitch = np.abs(np.sin(np.pi * (y * frequency * 1.2 + fold * 1.4)))
    return (stitch * (1 - (2 * fold - 0.5) ** 2)).astype(np.float32)


def gradient(rng, canvas):
    """A slow change of tone, straight or round."""
    x, y = canvas.rotated(rng.uniform(0, 2 * np.pi), tuple(rng.uniform(-0.3, 0.3, 2)))
    field = x if rng.random() < 0.5 else np.hypot(x, y * rng.uniform(0.5, 1.5))
    return rescale(field)


def turned_rings(rng, canvas):
    """Concentric machining marks."""
    x, y = canvas.rotated(0, tuple(rng.uniform(-0.6, 0.6, 2)))
    radius = np.hypot(x, y)
    rings = _wave(radius * log_uniform(rng, 6, 28), rng.random())
    jitter = np.interp(radius.ravel(), np.linspace(0, 1.5, 160), rng.random(160)).reshape(canvas.shape)
    mix = rng.random()
    return (mix * rings + (1 - mix) * jitter).astype(np.float32)


PATTERNS = {
    cloud: ("stone", "concrete", "plaster", "rock", "cement"),
    grain: ("sandpaper", "sand", "grit", "asphalt", "powder"),
    brushed: ("brushed metal", "steel", "aluminium", "rolled plate", "foil"),
    stripes: ("striped cloth", "ribbon", "striped paper", "blinds"),
    twill: ("twill", "denim", "gabardine", "ribbed cloth"),
    lattice: ("lattice", "fence", "netting", "grating"),
    paving: ("brick wall", "paving", "masonry"),
    growth_rings: ("timber", "plank", "veneer", "bark"),
    contours: ("agate", "onyx", "banded rock", "camouflage"),
    cells: ("pebbles", "cobbles", "cellular foam", "scales"),
    hammered: ("hammered metal", "peel", "stucco", "dimpled foil"),
    flecks: ("granite", "terrazzo", "linoleum", "speckled stone"),
    fibres: ("felt", "fur", "fibre board", "hay", "fleece"),
    motifs: ("printed cloth", "studded plate", "stencil", "wrapping paper"),
    chequers: ("chequered board", "quilt", "chess board"),
    ripples: ("water", "dune", "wavy glass", "ripples"),
    plain: ("painted panel", "plastic", "paper", "enamel", "rubber"),
    maze: ("coral", "maze pattern", "sponge", "brain pattern"),
    chevrons: ("zigzag cloth", "herringbone", "tweed", "parquet"),
    shingles: ("shingles", "roof", "feathers", "slates"),
    honeycomb: ("honeycomb", "beehive"),
    loops: ("knitwear", "sweater", "sock", "wool"),
    gradient: ("mirror", "glazed plate", "chrome", "porcelain"),
    turned_rings: ("lathe part", "record", "turned metal", "dial"),
}

HELD_OUT_PATTERNS = (maze, shingles, honeycomb)
"""Patterns that training never draws: the measure of what it learnt uses them alone."""


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """An RGB colour in [0, 1]; grey tones and dull colours are as common as they are in photographs."""
    value = rng.uniform(0.08, 0.95)
    saturation = rng.choice([0.0, rng.uniform(0, 0.3), rng.uniform(0.2, 0.9)])
    hue = rng.random(3)
    hue = (hue - hue.min()) / (hue.max() - hue.min() + 1e-6)
    return (value * (1 - saturation * (1 - hue))).astype(np.float32)


def colourise(rng: np.random.Generator, pattern: np.ndarray) -> np.ndarray:
    """A pattern in [0, 1] as an RGB picture (height, width, 3): two or three tones around a base colour."""
    base = random_colour(rng)
    if rng.random() < 0.25:
        ends = np.stack([base, random_colour(rng)])
    else:
        contrast = log_uniform(rng, 0.06, 0.8) * rng.choice([-1, 1])
        tint = rng.normal(0, 0.04, 3) * (rng.random() < 0.6)
        direction = contrast * (0.5 + 0.5 * base / max(base.mean(), 0.1)) + tint
        ends = np.stack([base - direction / 2, base + direction / 2])
    curve = pattern[..., None] ** np.float32(log_uniform(rng, 0.6, 1.6))
    image = ends[0] + curve * (ends[1] - ends[0])
    return np.clip(image, 0.01, 0.99).astype(np.float32)


TRAINING_PATTERNS = tuple(pattern for pattern in PATTERNS if pattern not in HELD_OUT_PATTERNS)


def draw_material(
    rng: np.random.Generator,
    canvas: Canvas,
    *,
    calm: bool = False,
    patterns: tuple[Callable[[np.random.Generator, Canvas], np.ndarray], ...] = TRAINING_PATTERNS,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A random material: RGB picture (height, width, 3) in [0, 1] and the nouns that may name it.

    `calm` prefers quiet surfaces, as the skin of objects and the ground behind them usually are.
    """
    if calm and rng.random() < 0.6:
        draw = (plain, cloud, gradient, brushed, grain)[rng.integers(5)]
    else:
        draw = patterns[rng.integers(len(patterns))]
    pattern = draw(rng, canvas)
    if rng.random() < 0.25:
        pattern = 0.5 + 0.5 * relief(ndimage.gaussian_filter(pattern, 0.6), rng.uniform(0, 6.3), rng.uniform(0.4, 1.2))
    if rng.random() < 0.35:
        other = (cloud, grain, brushed)[rng.integers(3)](rng, canvas)
        pattern = np.clip(pattern + rng.uniform(0.05, 0.4) * (other - 0.5), 0, 1)
    if calm:
        pattern = 0.5 + (pattern - 0.5) * rng.uniform(0.1, 1)
    return colourise(rng, np.clip(pattern, 0, 1).astype(np.float32)), PATTERNS[draw]


def draw_plain(rng: np.random.Generator, canvas: Canvas) -> tuple[np.ndarray, tuple[str, ...]]:
    """A skin of one colour, at most a little uneven or grainy: picture and nouns as of [`draw_material`]."""
    tone = 1 + rng.choice([0.0, rng.uniform(0, 0.06)]) * smooth_noise(rng, canvas, rng.uniform(0.2, 1))
    tone = tone + rng.choice([0.0, rng.uniform(0, 0.03)]) * rng.standard_normal(canvas.shape, dtype=np.float32)
    image = random_colour(rng) * tone[..., None].astype(np.float32)
    return np.clip(image, 0.01, 0.99), PATTERNS[plain]
