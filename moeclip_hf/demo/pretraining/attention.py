"""Attention of the vision tower for training on CPUs in bfloat16."""

import torch
from transformers import AttentionInterface


NAME = "pretraining"


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    **kwargs: float,
) -> tuple[torch.Tensor, None]:
    """Softmax attention over everything, in the precision of its inputs.

    Takes (B, heads, N, head size), gives (B, N, heads, head size). Autocast would compute and keep the probabilities in
    float32: on CPUs copying these takes a quarter of a training step, while what is multiplied with the values is rounded
    to bfloat16 anyway. The fused kernel's backward pass is slower still at these sizes.
    """
    with torch.autocast(query.device.type, enabled=False):
        probabilities = ((query * scaling) @ key.transpose(-1, -2)).softmax(-1)
        return (probabilities @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
