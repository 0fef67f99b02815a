"""What stands on the vision tower's patch tokens: averaging over windows (PAA), projections, and the image head."""

import math

import torch
from torch import nn
from transformers.activations import ACT2FN


def average_patches(tokens: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Averages each patch with its neighbours (PAA): stride 1, zeros beyond the border count in the mean.

    Args:
        tokens (`torch.Tensor` of shape `(batch_size, num_patches, hidden_size)`): Patches of a square grid, row by row.
        kernel_size (`int`): Side of the window in patches, odd.

    Returns:
        `torch.Tensor`: averaged patches of the same shape.
    """
    if kernel_size == 1:
        return tokens
    grid_size = math.isqrt(tokens.shape[1])
    grid = tokens.unflatten(1, (grid_size, grid_size)).permute(0, 3, 1, 2)  # (batch_size, hidden_size, grid, grid)
    grid = nn.functional.avg_pool2d(grid, kernel_size, stride=1, padding=kernel_size // 2)
    return grid.permute(0, 2, 3, 1).flatten(1, 2)


class Projection(nn.Linear):
    """Linear map without bias, with an optional activation."""

    def __init__(self, in_features: int, out_features: int, activation: str | None = None):
        super().__init__(in_features, out_features, bias=False)
        self.activation = None if activation is None else ACT2FN[activation]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Projects `(..., in_features)` to `(..., out_features)`."""
        projected = super().forward(features)
        return projected if self.activation is None else self.activation(projected)


class ImageHead(nn.Module):
    """Depth-wise adapter that turns the last feature layer's patches into one image embedding.

    Layer norm, depth-wise convolution over the patch sequence, GELU, point-wise convolution; each patch is
    L2-normalised and the patches are averaged.

    Args:
        hidden_size (`int`): Width of the vision tower.
        projection_dim (`int`): Width of the image embedding.
        layer_norm_eps (`float`): Epsilon of the layer norm.
    """

    def __init__(self, hidden_size: int, projection_dim: int, layer_norm_eps: float):
        super().__init__()
        self.layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.depthwise_conv = nn.Conv1d(hidden_size, hidden_size, 3, padding=1, groups=hidden_size, bias=False)
        self.pointwise_conv = nn.Conv1d(hidden_size, projection_dim, 1, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeds the images.

        Args:
            tokens (`torch.Tensor` of shape `(batch_size, num_patches, hidden_size)`): Patches after the final norm.

        Returns:
            `torch.Tensor` of shape `(batch_size, projection_dim)`, float32, not normalised.
        """
        sequence = self.layer_norm(tokens).transpose(1, 2)  # (batch_size, hidden_size, num_patches)
        sequence = self.pointwise_conv(nn.functional.gelu(self.depthwise_conv(sequence)))
        return nn.functional.normalize(sequence.float(), dim=1).mean(dim=2)


__all__ = ["ImageHead", "Projection", "average_patches"]
