"""A baseline that knows nothing: a patch is as suspicious as its colour differs from its neighbourhood's."""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..evaluation import BenchmarkProtocol


if TYPE_CHECKING:
    from ..data import AnomalyDetectionDataset


GRIDS = (56, 28, 14, 7)
"""Numbers of patches along one side that are tried: patches of 4, 8, 16 and 32 pixels on a picture of 224."""


def local_contrast(images: torch.Tensor, grid_size: int, reach: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores each patch by the distance of its mean colour from the mean of the patches around it.

    Args:
        images (`torch.Tensor` of shape `(batch_size, 3, height, width)`): Pictures, on any linear scale.
        grid_size (`int`): Patches along one side; must divide height and width.
        reach (`int`, *optional*, defaults to 2): Patches to each side that make up the neighbourhood.

    Returns:
        `tuple(torch.Tensor)`: maps `(batch_size, height, width)` and, as image scores, their maxima `(batch_size,)`.

    Raises:
        ValueError: If the patches do not tile the pictures.
    """
    height, width = images.shape[-2:]
    if height % grid_size or width % grid_size:
        raise ValueError(f"`grid_size` ({grid_size}) must divide the pictures' height ({height}) and width ({width}).")
    patches = F.avg_pool2d(images.float(), (height // grid_size, width // grid_size))
    # Without the padding in the mean, a patch at the border is compared with the neighbours that it has.
    around = F.avg_pool2d(patches, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)
    distance = (patches - around).norm(dim=1)  # (batch_size, grid_size, grid_size)
    maps = F.interpolate(distance[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return maps, distance.flatten(1).amax(dim=1)


def evaluate_local_contrast(samples: "AnomalyDetectionDataset") -> dict:
    """Evaluates the baseline under the benchmark protocol, at the scale that suits the data best.

    Args:
        samples (`AnomalyDetectionDataset`): Pictures with labels and masks, of a side that all of `GRIDS` divide.

    Returns:
        `dict`: results as [`~evaluation.BenchmarkProtocol.compute`] returns them, `meta` with the `grid_size` of the
        scale. It is chosen by these very results (image and pixel AUROC), which favours the baseline.
    """
    protocols = {grid_size: BenchmarkProtocol() for grid_size in GRIDS}
    for index, class_name in enumerate(samples.class_names):
        sample = samples[index]
        labels, masks = torch.tensor([sample["labels"]]), sample["mask_labels"][None]
        for grid_size, protocol in protocols.items():
            maps, scores = local_contrast(sample["pixel_values"][None], grid_size)
            protocol.update([class_name], maps, scores, labels, masks)
    results = {grid_size: protocol.compute() for grid_size, protocol in protocols.items()}
    best = max(results, key=lambda grid: results[grid]["mean"]["image_auroc"] + results[grid]["mean"]["pixel_auroc"])
    results[best]["meta"]["grid_size"] = best
    return results[best]
