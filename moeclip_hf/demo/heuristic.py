"""A baseline that knows nothing: a patch is as suspicious as its colour differs from its neighbourhood's."""

import torch
import torch.nn.functional as F


SCALES = (4, 8, 16, 32)
"""Sides of the patches tried, in pixels of a picture of 224."""


def local_contrast(images: torch.Tensor, patch_size: int, reach: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores each patch by the distance of its mean colour from the mean of the patches around it.

    Args:
        images (`torch.Tensor` of shape `(batch_size, 3, height, width)`): Pictures, on any linear scale.
        patch_size (`int`): Side of a patch, in pixels; must divide height and width.
        reach (`int`, *optional*, defaults to 2): Patches to each side that make up the neighbourhood.

    Returns:
        `tuple(torch.Tensor)`: maps `(batch_size, height, width)` and, as image scores, their maxima `(batch_size,)`.

    Raises:
        ValueError: If the patches do not tile the pictures.
    """
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"`patch_size` ({patch_size}) must divide the pictures' height ({height}) and width ({width})."
        )
    patches = F.avg_pool2d(images.float(), patch_size)
    window = 2 * reach + 1
    # Without the padding in the mean, a patch at the border is compared with the neighbours that it has.
    around = F.avg_pool2d(patches, window, stride=1, padding=reach, count_include_pad=False)
    distance = (patches - around).norm(dim=1)
    maps = F.interpolate(distance[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return maps, distance.flatten(1).amax(dim=1)
