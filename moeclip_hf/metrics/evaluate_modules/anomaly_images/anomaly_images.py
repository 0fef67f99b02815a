"""Image metrics of anomaly scores for the `evaluate` library: a thin layer over `moeclip_hf.metrics.ImageMetrics`."""

import datasets
import evaluate

from moeclip_hf.metrics import ImageMetrics


_DESCRIPTION = """\
Exact AUROC, average precision and maximal F1 over the anomaly scores of images.
"""

_INPUTS = """
Args:
    predictions (array of shape `(batch_size,)`): anomaly scores, higher where more anomalous.
    references (array of the same shape): bool or 0 / 1, true where anomalous.

Returns:
    dict: `image_auroc`, `image_ap`, `image_f1_max` in [0, 1]; NaN unless both kinds of images occur.
"""


class AnomalyImages(evaluate.Metric):
    """Hands scores and labels on as they are, so that NaN is refused and ties count half."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._metrics = ImageMetrics()

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")}),
        )

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Adds a batch of images."""
        self._metrics.update(predictions, references)

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Adds one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(self, *, predictions=None, references=None, **kwargs):
        """Computes the metrics over all images since the last call, and those given here."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        metrics, self._metrics = self._metrics, ImageMetrics()
        return metrics.compute()

    def _compute(self, predictions=None, references=None):
        return self.compute(predictions=predictions, references=references)
