"""How well a CLIP's own patch-text similarity finds irregular regions, without any adapter."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from ...backbone_moeclip import default_feature_layers
from .levels import read_levels
from .objective import IRREGULAR_SHARE, UNSURE_SHARE
from .samples import Sample, draw_sample
from .shards import patch_shares


MEASURE_SEED = 9_000_001
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(images: np.ndarray) -> torch.Tensor:
    """Pictures (B, H, W, 3) in [0, 1] as CLIP's pixel values (B, 3, H, W)."""
    pixels = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    return ((pixels - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)).permute(0, 3, 1, 2).contiguous()


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve by ranks, ties counted half; NaN without both kinds."""
    scores, positive = np.ravel(scores), np.ravel(positive).astype(bool)
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


@torch.no_grad()
def state_maps(
    clip: CLIPModel, tokenizer: CLIPTokenizer, pixel_values: torch.Tensor, nouns: Sequence[str], batch_size: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much more each patch, and each image, resembles "a damaged {noun}." than "a {noun}.".

    The tower is read as a fresh MoECLIP does. Returns maps (B, g, g) and image scores (B,), differences of cosines.
    """
    texts = [form.format(noun) for form in ("a {}.", "a damaged {}.") for noun in nouns]
    ids = tokenizer(texts, padding=True, return_tensors="pt").input_ids
    embeds = F.normalize(clip.text_projection(clip.text_model(input_ids=ids).pooler_output), dim=-1)
    normal, damaged = embeds.chunk(2)
    tower, maps, scores = clip.vision_model, [], []
    levels = default_feature_layers(clip.config.vision_config.num_hidden_layers)
    for start in range(0, len(pixel_values), batch_size):
        rows = slice(start, start + batch_size)
        tokens = read_levels(tower, tower.embeddings(pixel_values[rows]), levels)[-1]
        tokens = F.normalize(clip.visual_projection(tower.post_layernorm(tokens)), dim=-1)
        difference = (tokens * (damaged - normal)[rows, None]).sum(-1)
        side = int((difference.shape[1] - 1) ** 0.5)
        maps.append(difference[:, 1:].reshape(-1, side, side))
        scores.append(difference[:, 0])
    return torch.cat(maps), torch.cat(scores)


def measure(clip: CLIPModel, tokenizer: CLIPTokenizer, samples: Sequence[Sample]) -> dict[str, float]:
    """Region AUROC over the patches of the foreground, image AUROC by the highest patch and by the image embedding.

    The ground behind an object does not count: nothing is ever wrong with it, so it would be easy to rank low.
    """
    images = np.stack([sample.image for sample in samples]).astype(np.float32) / 255
    patch = clip.config.vision_config.patch_size
    shares = np.stack([patch_shares(sample.mask, patch) for sample in samples]) / 255
    maps, scores = state_maps(clip, tokenizer, normalise(images), [sample.noun for sample in samples])
    foreground = np.stack([patch_shares(sample.foreground, patch) for sample in samples]) > 127
    clear = foreground & ((shares >= IRREGULAR_SHARE) | (shares <= UNSURE_SHARE))
    irregular = (shares >= IRREGULAR_SHARE).any((1, 2))
    return {
        "region_auroc": auroc(maps.numpy()[clear], shares[clear] >= IRREGULAR_SHARE),
        "image_auroc_by_patches": auroc(maps.flatten(1).amax(1).numpy(), irregular),
        "image_auroc_by_embedding": auroc(scores.numpy(), irregular),
    }


def measure_procedural(clip: CLIPModel, tokenizer: CLIPTokenizer, count: int = 400) -> dict[str, dict[str, float]]:
    """Figures on fresh pictures: scenes as in training, and patterns that training never draws."""
    size = clip.config.vision_config.image_size
    return {
        name: measure(
            clip,
            tokenizer,
            [draw_sample(MEASURE_SEED, number, size, held_out=held_out) for number in range(count)],
        )
        for name, held_out in (("fresh", False), ("held_out", True))
    }
