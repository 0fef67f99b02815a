"""Image-level metrics of anomaly scores."""

import numpy as np
import torch

from .bins import align
from .curves import auroc, average_precision, f1_max
from .histogram import ScoreHistogram
from .inputs import as_scores, as_truth


class ImageMetrics:
    r"""Exact AUROC, average precision and maximal F1 over the scores of all images.

    Example:
    ```python
    >>> import numpy as np
    >>> from moeclip_hf.metrics import ImageMetrics

    >>> metrics = ImageMetrics()
    >>> metrics.update(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    >>> metrics.compute()["image_auroc"]
    0.75
    ```
    """

    def __init__(self):
        self._normal, self._anomalous = ScoreHistogram(), ScoreHistogram()

    def update(self, scores: torch.Tensor | np.ndarray, labels: torch.Tensor | np.ndarray) -> None:
        """Adds a batch of images.

        Args:
            scores (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): higher where more anomalous.
            labels (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): bool or 0 / 1, true where anomalous.

        Raises:
            ValueError: if the shapes differ, a score is NaN or a label is another number than 0 and 1.
        """
        scores = as_scores("scores", scores, num_dims=1)
        labels = as_truth("labels", labels, scores.shape)
        self._normal.update(scores[~labels])
        self._anomalous.update(scores[labels])

    def merge(self, other: "ImageMetrics") -> None:
        """Adds all that another object has seen, e.g. on another process; the other stays as it is.

        Args:
            other (`ImageMetrics`): metrics of other images.
        """
        self._normal.merge(other._normal)
        self._anomalous.merge(other._anomalous)

    def compute(self) -> dict[str, float]:
        """Computes the metrics over everything seen so far.

        Returns:
            `dict[str, float]`: `image_auroc`, `image_ap` and `image_f1_max` in [0, 1], NaN unless both normal and
            anomalous images were seen.
        """
        normal, anomalous = align(self._normal.compute(), self._anomalous.compute())
        return {
            "image_auroc": auroc(normal, anomalous),
            "image_ap": average_precision(normal, anomalous),
            "image_f1_max": f1_max(normal, anomalous),
        }
