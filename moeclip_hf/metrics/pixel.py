"""Pixel-level metrics of anomaly maps."""

import numpy as np
import torch

from .bins import align
from .curves import aupro, auroc, average_precision, f1_max
from .histogram import ScoreHistogram
from .inputs import as_scores, as_truth
from .regions import region_weights


class PixelMetrics:
    r"""AUROC, average precision, maximal F1 and AUPRO over the pixels of all images, in constant memory.

    The scores' range need not be known. Up to `capacity` distinct scores the results are exact; beyond that, scores of
    about equal rank are taken for equal (see `ScoreHistogram`). Order, batches and merges change it by less than 1e-6.

    Args:
        aupro (`bool`, *optional*, defaults to `True`):
            Whether to compute `pixel_aupro`, which needs scipy and time to find the connected regions of the masks.
        capacity (`int` or `None`, *optional*, defaults to 2**19):
            Highest number of distinct scores of normal and of anomalous pixels that are kept apart, None for all.

    Example:
    ```python
    >>> import numpy as np
    >>> from moeclip_hf.metrics import PixelMetrics

    >>> metrics = PixelMetrics()
    >>> metrics.update(np.array([[[0.1, 0.2, 0.9]]]), np.array([[[False, False, True]]]))
    >>> metrics.compute()
    {'pixel_auroc': 1.0, 'pixel_ap': 1.0, 'pixel_f1_max': 1.0, 'pixel_aupro': 1.0}
    ```
    """

    def __init__(self, aupro: bool = True, capacity: int | None = 2**19):
        self._with_aupro = aupro
        # Beside their count, anomalous pixels carry their share of their region.
        self._anomalous = ScoreHistogram(num_extra=int(aupro), capacity=capacity)
        self._normal = ScoreHistogram(capacity=capacity)

    def update(self, maps: torch.Tensor | np.ndarray, masks: torch.Tensor | np.ndarray) -> None:
        """Adds the pixels of a batch of images.

        Args:
            maps (`torch.Tensor` or `np.ndarray` of shape `(batch_size, height, width)`):
                Anomaly maps, higher where more anomalous; any finite or infinite floats.
            masks (`torch.Tensor` or `np.ndarray` of shape `(batch_size, height, width)`):
                Bool or 0 / 1, true where anomalous.

        Raises:
            ValueError: if the shapes differ, a score is NaN or a mask holds another number than 0 and 1.
            ImportError: if AUPRO is asked for and scipy is not installed.
        """
        maps = as_scores("maps", maps, num_dims=3)
        masks = as_truth("masks", masks, maps.shape)
        extra = region_weights(masks)[None] if self._with_aupro else None
        self._normal.update(maps[~masks])
        self._anomalous.update(maps[masks], extra)

    def merge(self, other: "PixelMetrics") -> None:
        """Adds all that another object has seen, e.g. on another process; the other stays as it is.

        Args:
            other (`PixelMetrics`): metrics made with the same arguments.

        Raises:
            ValueError: if the arguments differ.
        """
        mine, theirs = ((metrics._with_aupro, metrics._normal.capacity) for metrics in (self, other))
        if mine != theirs:
            raise ValueError(f"cannot merge metrics of (`aupro`, `capacity`) {mine} and {theirs}: they must be equal.")
        self._normal.merge(other._normal)
        self._anomalous.merge(other._anomalous)

    def compute(self) -> dict[str, float]:
        """Computes the metrics over everything seen so far.

        Returns:
            `dict[str, float]`: `pixel_auroc`, `pixel_ap`, `pixel_f1_max` and, if asked for, `pixel_aupro`, in [0, 1];
            NaN unless both normal and anomalous pixels were seen.
        """
        normal, anomalous, *overlap = align(self._normal.compute(), self._anomalous.compute())
        metrics = {
            "pixel_auroc": auroc(normal, anomalous),
            "pixel_ap": average_precision(normal, anomalous),
            "pixel_f1_max": f1_max(normal, anomalous),
        }
        if self._with_aupro:
            metrics["pixel_aupro"] = aupro(normal, overlap[0])
        return metrics
