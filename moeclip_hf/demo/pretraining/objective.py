"""What is learnt: region-text contrast. Every patch is compared with the texts of what lies under it."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPModel

from ...processing_moeclip import smooth_anomaly_logits
from .levels import read_levels


UNSURE_SHARE, IRREGULAR_SHARE = 0.02, 0.08
"""Shares of a patch: irregular from the second on, not counted between the two, sound below the first."""

IRREGULAR_WEIGHT = 6.0


@dataclass(frozen=True)
class Batch:
    """Tensors of one step.

    `pixel_values` (B, 3, H, W); `irregular`, `compared` and `foreground` (B, N) shares in [0, 1], where `compared` is
    what is irregular in a picture's twin of the same batch (zero without a twin); `normal_ids` and `abnormal_ids`
    (B, L), one prompt pair an image, or (B / 2, L) where the second half are twins of the first; `noun_ids` (B,), equal
    where the noun is equal, -1 where it says nothing about the picture. `places` (B, N) says which patches of a whole
    picture these are, as numbers of its grid; None for whole pictures.
    """

    pixel_values: torch.Tensor
    irregular: torch.Tensor
    compared: torch.Tensor
    foreground: torch.Tensor
    normal_ids: torch.Tensor
    abnormal_ids: torch.Tensor
    noun_ids: torch.Tensor
    places: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(**{name: None if value is None else value.to(device) for name, value in vars(self).items()})


class RegionTextObjective(nn.Module):
    """CLIP with throw-away heads on earlier levels, and the loss over all of them.

    The last level speaks through CLIP's own visual projection; the earlier levels get linear heads of their own that are
    not kept. They make sure that the tokens of every level, not of the last alone, carry the state linearly. One more
    head, on the mean of the last patches, makes sure that they carry the state of the whole picture as well.
    """

    LEVEL_WEIGHTS = (0.3, 0.5, 0.7, 1.0)

    def __init__(self, clip: CLIPModel, levels: tuple[int, ...]):
        super().__init__()
        self.clip, self.levels = clip, levels
        vision = clip.config.vision_config
        self.heads = nn.ModuleList(
            nn.Linear(vision.hidden_size, clip.config.projection_dim, bias=False) for _ in levels[:-1]
        )
        self.mean_head = nn.Linear(vision.hidden_size, clip.config.projection_dim, bias=False)
        self.patch_scale = nn.Parameter(torch.tensor(2.5))
        self.state_bias = nn.Parameter(torch.tensor(-1.0))

    def encode_texts(self, ids: torch.Tensor) -> torch.Tensor:
        """L2-normalised text embeddings (n, P)."""
        embeds = self.clip.text_projection(self.clip.text_model(input_ids=ids).pooler_output)
        return F.normalize(embeds.float(), dim=-1)

    def _embed(self, pixel_values: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """Class token and patches (B, 1 + N, V); the patches of a piece keep the positions that the whole gives them."""
        embeddings = self.clip.vision_model.embeddings
        if places is None:
            return embeddings(pixel_values)
        positions = embeddings.position_embedding.weight
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)  # (B, N, V)
        first = (embeddings.class_embedding + positions[0]).expand(len(patches), 1, -1)
        return torch.cat([first, patches + positions[1:][places]], dim=1)

    def encode_levels(
        self, pixel_values: torch.Tensor, places: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """L2-normalised patch embeddings (B, N, P) of every level, the image embedding and the patches' mean (B, P)."""
        tower = self.clip.vision_model
        states = read_levels(tower, self._embed(pixel_values, places), self.levels)
        heads = [*self.heads, self.clip.visual_projection]
        tokens = [tower.post_layernorm(state) for state in states]
        patches = [F.normalize(head(token[:, 1:]).float(), dim=-1) for head, token in zip(heads, tokens, strict=True)]
        image = self.clip.visual_projection(tokens[-1][:, 0]).float()
        mean = self.mean_head(tokens[-1][:, 1:].mean(1)).float()
        return patches, F.normalize(image, dim=-1), F.normalize(mean, dim=-1)

    def forward(self, batch: Batch, peak_weight: float = 0.0, rank_weight: float = 0.0) -> dict[str, torch.Tensor]:
        """Loss terms: `state`, `peak`, `rank`, `image_state` and `mean_state` (sound or not), nouns (what), and `loss`.

        A weight of 0 leaves its term out of `loss`; `rank`, which needs pairs, is then not computed.
        """
        texts = self.encode_texts(torch.cat([batch.normal_ids, batch.abnormal_ids]))
        normal, abnormal = texts.chunk(2)
        repeats = len(batch.pixel_values) // len(normal)
        normal, abnormal = normal.repeat(repeats, 1), abnormal.repeat(repeats, 1)
        levels, image, mean = self.encode_levels(batch.pixel_values, batch.places)
        scale = self.patch_scale.exp().clamp(max=100)
        direction = (abnormal - normal)[:, None]
        logits = [scale * (patches * direction).sum(-1) + self.state_bias for patches in levels]
        state = sum(
            weight * state_loss(level, batch.irregular, batch.compared)
            for weight, level in zip(self.LEVEL_WEIGHTS, logits, strict=True)
        ) / sum(self.LEVEL_WEIGHTS)
        has_irregular = (batch.irregular >= IRREGULAR_SHARE).any(-1).float()
        image_state, mean_state = (
            F.binary_cross_entropy_with_logits(scale * (embeds * direction[:, 0]).sum(-1), has_irregular)
            for embeds in (image, mean)
        )
        sound = (batch.foreground > 0.5) & (batch.irregular < UNSURE_SHARE)
        surface = (levels[-1] * sound[..., None]).sum(1) / sound.sum(1, keepdim=True).clamp(min=1)
        terms = {
            "state": state,
            "peak": peak_loss(logits[-1], batch.irregular),
            "image_state": image_state,
            "mean_state": mean_state,
            "noun": noun_loss(scale * F.normalize(surface, dim=-1) @ normal.T, batch.noun_ids),
            "image_noun": noun_loss(scale * image @ normal.T, batch.noun_ids),
        }
        terms["loss"] = state + 0.3 * (image_state + mean_state) + 0.1 * (terms["noun"] + terms["image_noun"])
        if peak_weight:
            terms["loss"] = terms["loss"] + peak_weight * terms["peak"]
        if rank_weight:
            terms["rank"] = rank_loss(sum(logits) / len(logits), batch.irregular)
            terms["loss"] = terms["loss"] + rank_weight * terms["rank"]
        return terms


def state_loss(logits: torch.Tensor, irregular: torch.Tensor, compared: torch.Tensor) -> torch.Tensor:
    """Weighted binary cross-entropy of patches (B, N): irregular from a share of 0.08 on, unsure below down to 0.02.

    Irregular patches are rare and weigh six times as much; so do the same patches of a sound twin, so that neither the
    place nor the pattern alone can tell the two apart. Unsure ones do not count.
    """
    target = (irregular >= IRREGULAR_SHARE).float()
    sound = torch.where(compared >= IRREGULAR_SHARE, IRREGULAR_WEIGHT, 1.0)
    weight = torch.where(irregular > UNSURE_SHARE, target * IRREGULAR_WEIGHT, sound)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * losses).sum() / weight.sum()


def peak_loss(logits: torch.Tensor, irregular: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the mean of a picture's three highest patches (B, N) against "is anything irregular".

    Pictures with nothing but unsure patches do not count.
    """
    share = irregular.amax(-1)
    known = (share >= IRREGULAR_SHARE) | (share <= UNSURE_SHARE)
    peaks = logits.topk(3, dim=-1).values.mean(-1)
    losses = F.binary_cross_entropy_with_logits(peaks, (share >= IRREGULAR_SHARE).float(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def rank_loss(logits: torch.Tensor, irregular: torch.Tensor) -> torch.Tensor:
    """How far irregular pictures fall short of standing above sound ones, by their highest patch: softplus of the gap.

    Takes pairs (B, N), the second half of the rows being the sound twins of the first. As where anomalies are scored,
    the maps are smoothed before the highest patch is looked for; in an irregular picture among the irregular ones, so
    that no sound one is raised in their stead. Each picture is compared with its own twin and with every twin, half and
    half. Pictures with nothing but unsure patches do not count; 0 if all are such.
    """
    side = int(logits.shape[1] ** 0.5)
    smoothed = smooth_anomaly_logits(logits.unflatten(1, (side, side))).flatten(1)
    found, twins = smoothed.chunk(2)
    marked = irregular.chunk(2)[0] >= IRREGULAR_SHARE
    known = marked.any(-1)
    found = found.masked_fill(~marked, float("-inf")).amax(-1)[known]  # (known,)
    highest = twins.amax(-1)  # (B / 2,)
    if not len(found):
        return logits.new_zeros(())
    return (F.softplus(highest[known] - found).mean() + F.softplus(highest - found[:, None]).mean()) / 2


def noun_loss(logits: torch.Tensor, noun_ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (B, B) image-to-text logits; equal nouns share the target; images with noun -1 do not count."""
    known = noun_ids >= 0
    same = (noun_ids[:, None] == noun_ids[None]) & known[:, None]
    target = same / same.sum(-1, keepdim=True).clamp(min=1)
    losses = -(target * logits.log_softmax(-1)).sum(-1)
    return (losses * known).sum() / known.sum().clamp(min=1)
