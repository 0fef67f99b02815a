"""The tower as a fresh MoECLIP reads it: its experts have nothing to add yet, and leave 0.9 of each token.

A tower that learnt without this would be another in the model: what the layers after the first experts add weighs more.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ...configuration_moeclip import MoELoraConfig


KEPT_BY_EXPERTS = 1 - MoELoraConfig.adapter_weight
"""Share of a token that is not the experts'."""


def read_levels(tower: nn.Module, embeddings: torch.Tensor, levels: Sequence[int]) -> list[torch.Tensor]:
    """Tokens (B, L, V) after the experts of each level, from CLIP's vision tower and its embeddings (B, L, V).

    `levels` are the layers that have experts, 0-based and ascending.
    """
    hidden, found = tower.pre_layrnorm(embeddings), []
    for index, layer in enumerate(tower.encoder.layers):
        hidden = layer(hidden, attention_mask=None)
        if index in levels:
            hidden = KEPT_BY_EXPERTS * hidden
            found.append(hidden)
    return found
