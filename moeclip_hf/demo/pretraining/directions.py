"""One direction for damage: the text tower alone learns to tell damaged from sound alike for every noun.

Learnt together with the pictures, the difference of the two texts varies from noun to noun, most for words that were rare
in training, and a patch's resemblance to "damaged" with it. What a noun says besides is kept.
"""

import copy

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from ..benchmark.categories import TRAIN_CATEGORIES
from .objective import RegionTextObjective
from .products import PRODUCT_NOUNS
from .scenes import scene_nouns
from .texts import arbitrary_noun, describe_noun, state_texts


_SEED = 5
_STEPS, _NOUNS_PER_STEP = 1500, 48
_LEARNING_RATE, _WARMUP = 1e-3, 50


def known_nouns() -> list[str]:
    """Nouns that name pictures of the pretraining, sorted."""
    products = (noun for nouns in PRODUCT_NOUNS.values() for noun in nouns)
    return sorted({*scene_nouns(), *products, *(category.name.replace("_", " ") for category in TRAIN_CATEGORIES)})


def mean_direction(model: RegionTextObjective, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Mean over the known nouns of the text embedding of "a damaged {noun}." less that of "a {noun}.", (P,)."""
    texts = [form.format(noun) for form in ("a {}.", "a damaged {}.") for noun in known_nouns()]
    with torch.no_grad():
        normal, damaged = model.encode_texts(_tokenize(tokenizer, texts, model.state_bias.device)).chunk(2)
    return (damaged - normal).mean(0)


def with_direction(embeds: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """The nearest pairs of unit vectors whose difference is `direction`.

    Takes and gives (2n, P), the first half sound, the second damaged. The middle of each pair keeps what is orthogonal to
    `direction` (P,), at the length that makes both ends unit vectors again.
    """
    normal, abnormal = embeds.chunk(2)
    unit, half = F.normalize(direction, dim=0), direction / 2
    middle = normal + abnormal
    middle = F.normalize(middle - (middle @ unit)[:, None] * unit, dim=-1) * (1 - half.square().sum()).sqrt()
    return torch.cat([middle - half, middle + half])


def text_parameters(model: RegionTextObjective) -> list[torch.nn.Parameter]:
    """The parameters that make text embeddings."""
    return [*model.clip.text_model.parameters(), *model.clip.text_projection.parameters()]


def teach_one_direction(
    model: RegionTextObjective, tokenizer: CLIPTokenizer, *, steps: int = _STEPS, progress: bool = True
) -> None:
    """Train the text tower in place towards its own embeddings with one direction, for known and arbitrary nouns alike."""
    rng, nouns = np.random.default_rng(_SEED), known_nouns()
    teacher = copy.deepcopy(model).requires_grad_(False)
    direction = mean_direction(teacher, tokenizer)
    for parameter in text_parameters(model):
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(text_parameters(model), betas=(0.9, 0.98), weight_decay=0.0)
    for step in tqdm(range(steps), desc="texts", disable=not progress):
        pairs = [_draw_pair(rng, nouns) for _ in range(_NOUNS_PER_STEP)]
        ids = _tokenize(tokenizer, [text for texts in zip(*pairs, strict=True) for text in texts], direction.device)
        target = with_direction(teacher.encode_texts(ids), direction)
        loss = (1 - (model.encode_texts(ids) * target).sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / _WARMUP, 1.25 * (1 - step / steps))
        optimizer.step()


def _draw_pair(rng: np.random.Generator, nouns: list[str]) -> tuple[str, str]:
    known = rng.random() >= 0.5
    noun = describe_noun(rng, nouns[rng.integers(len(nouns))]) if known else arbitrary_noun(rng)
    return state_texts(rng, noun)


def _tokenize(tokenizer: CLIPTokenizer, texts: list[str], device: torch.device) -> torch.Tensor:
    return tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids.to(device)
