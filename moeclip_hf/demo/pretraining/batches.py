"""Batches of the pretraining: samples of the pool turned, recoloured and cut, odd ones drawn as needed, texts for both."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from transformers import CLIPTokenizer

from .measure import normalise
from .objective import IRREGULAR_SHARE, Batch
from .odd_ones import draw_odd_one
from .shards import SamplePool, patch_shares
from .stages import PATCH_SIZE, Stage
from .texts import arbitrary_noun, describe_noun, state_texts


def _turn(array: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    array = np.rot90(array, turns)
    return array[:, ::-1] if flip else array


def _vary_colours(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Channel order, grey, negative, brightness and contrast, on float pictures (n, H, W, 3) in [0, 1], all alike."""
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.1:
        image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.25:
        image = 1 - image
    if rng.random() < 0.5:
        image = np.clip((image - 0.5) * rng.uniform(0.5, 1.4) + 0.5 + rng.uniform(-0.15, 0.15), 0, 1)
    return image


def _choose_piece(
    rng: np.random.Generator, irregular: np.ndarray, foreground: np.ndarray, side: int
) -> tuple[slice, slice]:
    """Rows and columns, in patches, of a square piece: in nine of ten cases it holds an irregular patch, if there is one.

    Takes the shares of the patches (grid, grid) in 0..255.
    """
    wanted = np.argwhere(irregular >= IRREGULAR_SHARE * 255)
    if not len(wanted) or rng.random() < 0.1:
        wanted = np.argwhere(foreground > 127)
    grid = len(irregular)
    middle = wanted[rng.integers(len(wanted))] if len(wanted) else np.array([grid // 2, grid // 2])
    row, column = np.clip(middle - rng.integers(1, side - 1, size=2), 0, grid - side)
    return slice(row, row + side), slice(column, column + side)


@dataclass(frozen=True)
class _Row:
    """A pair, or a single picture, of a batch: views (1 or 2, H, W, 3) in [0, 1] and shares (grid, grid) in 0..255.

    `places` are numbers of the whole grid's patches, `texts` sound and damaged ones, `noun_id` as in [`Batch`].
    """

    views: np.ndarray
    irregular: np.ndarray
    foreground: np.ndarray
    places: np.ndarray
    texts: tuple[str, str]
    noun_id: int


def _pool_row(rng: np.random.Generator, sample: dict[str, np.ndarray], stage: Stage) -> _Row:
    """A sample of the pool, turned, with other colours, cut to a piece, with texts of its own noun or of any."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    views = [sample[name] for name in ("images", "twins") if name in sample]
    views = _vary_colours(rng, np.stack([_turn(view, turns, flip) for view in views]).astype(np.float32) / 255)
    irregular, foreground = (_turn(sample[name], turns, flip) for name in ("irregular", "foreground"))
    places = _grid_numbers(stage)
    if stage.piece is not None:
        piece = _choose_piece(rng, irregular, foreground, stage.piece)
        irregular, foreground, places = irregular[piece], foreground[piece], places[piece]
        views = views[:, *(slice(part.start * PATCH_SIZE, part.stop * PATCH_SIZE) for part in piece)]
    own = rng.random() < 0.6
    noun = str(sample["nouns"])
    texts = state_texts(rng, describe_noun(rng, noun) if own else arbitrary_noun(rng))
    noun_id = int(hashlib.sha256(noun.encode()).hexdigest()[:12], 16) if own else -1
    return _Row(views, irregular, foreground, places, texts, noun_id)


def _odd_row(rng: np.random.Generator, stage: Stage, step: int) -> _Row:
    """Equal parts of which one is off, as large as a piece, with texts of any noun."""
    grid = stage.piece or stage.size // PATCH_SIZE
    difficulty = min(1.0, (step + 1) / stage.odd_growth) * np.sqrt(rng.random())
    drawn = draw_odd_one(rng, grid * PATCH_SIZE, PATCH_SIZE, difficulty)
    irregular = patch_shares(drawn.mask.astype(np.uint8) * 255, PATCH_SIZE)
    row, column = rng.integers(0, stage.size // PATCH_SIZE - grid + 1, size=2)
    return _Row(
        _vary_colours(rng, np.stack([drawn.image, drawn.twin])),
        irregular,
        np.full_like(irregular, 255),
        _grid_numbers(stage)[row : row + grid, column : column + grid],
        state_texts(rng, arbitrary_noun(rng)),
        noun_id=-1,
    )


def _grid_numbers(stage: Stage) -> np.ndarray:
    grid = stage.size // PATCH_SIZE
    return np.arange(grid * grid).reshape(grid, grid)


def make_batch(pool: SamplePool, tokenizer: CLIPTokenizer, stage: Stage, step: int, seed: int) -> Batch:
    """The batch of one step: a pure function of its arguments."""
    rng = np.random.default_rng((seed, stage.size, step, *((1,) if stage.paired else ())))
    count = stage.batch_size // 2 if stage.paired else stage.batch_size
    samples = pool.get(rng.integers(pool.available(step), size=count))
    rows = [_pool_row(rng, {name: values[row] for name, values in samples.items()}, stage) for row in range(count)]
    rows += [_odd_row(rng, stage, step) for _ in range(stage.odd_ones)]
    texts = [row.texts[0] for row in rows] + [row.texts[1] for row in rows]
    normal_ids, abnormal_ids = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids.chunk(2)
    irregular, foreground, places = (
        torch.from_numpy(np.stack([getattr(row, name).reshape(-1) for row in rows]))
        for name in ("irregular", "foreground", "places")
    )
    irregular, foreground = irregular / np.float32(255), foreground / np.float32(255)
    none, repeats = torch.zeros_like(irregular), 2 if stage.paired else 1
    views = [row.views[number] for number in range(repeats) for row in rows]
    return Batch(
        normalise(np.stack(views)),
        irregular=torch.cat([irregular, none][:repeats]),
        compared=torch.cat([none, irregular][:repeats]),
        foreground=foreground.repeat(repeats, 1),
        normal_ids=normal_ids,
        abnormal_ids=abnormal_ids,
        noun_ids=torch.tensor([row.noun_id for row in rows]).repeat(repeats),
        places=None if stage.piece is None else places.repeat(repeats, 1),
    )
