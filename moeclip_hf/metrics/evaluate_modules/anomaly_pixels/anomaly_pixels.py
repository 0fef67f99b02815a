"""Pixel metrics of anomaly maps for the `evaluate` library: a thin layer over `moeclip_hf.metrics.PixelMetrics`."""

import datasets
import evaluate

from moeclip_hf.metrics import PixelMetrics


_DESCRIPTION = """\
AUROC, average precision, maximal F1 and AUPRO (to a false-positive rate of 0.3, normalised, 8-connected regions) over
the pixels of anomaly maps, in constant memory.
"""

_INPUTS = """
Args:
    predictions (array of shape `(batch_size, height, width)`): anomaly maps, higher where more anomalous.
    references (array of the same shape): bool or 0 / 1, true where anomalous.

Returns:
    dict: `pixel_auroc`, `pixel_ap`, `pixel_f1_max`, `pixel_aupro` in [0, 1]; NaN unless both kinds of pixels occur.
"""


class AnomalyPixels(evaluate.Metric):
    """Streams maps and masks past `evaluate`'s tables, which would hold every pixel."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._metrics = PixelMetrics()

    def _info(self):
        images = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": images, "references": images}),
        )

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Adds the pixels of a batch of images."""
        self._metrics.update(predictions, references)

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Adds the pixels of one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(self, *, predictions=None, references=None, **kwargs):
        """Computes the metrics over all images since the last call, and those given here."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        metrics, self._metrics = self._metrics, PixelMetrics()
        return metrics.compute()

    def _compute(self, predictions=None, references=None):
        return self.compute(predictions=predictions, references=references)
