"""Image metrics against scikit-learn."""

import numpy as np
import pytest
import reference_metrics as reference
import torch

from moeclip_hf.metrics import ImageMetrics


def measure(scores, labels, batch_size=None):
    metrics = ImageMetrics()
    for start in range(0, len(scores), batch_size or len(scores)):
        stop = start + (batch_size or len(scores))
        metrics.update(scores[start:stop], labels[start:stop])
    return metrics.compute()


@pytest.mark.parametrize("decimals", [0, 1, 15])
@pytest.mark.parametrize("offset", [0, -1e6, 1e12])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference_in_any_batches(decimals, offset, seed):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(size=150) < 0.4
    scores = offset + np.round(rng.normal(size=150) + labels, decimals)
    expected = reference.ranking_metrics("image", scores, labels)
    for batch_size in (1, 7, 150):
        assert measure(scores, labels, batch_size) == pytest.approx(expected, abs=1e-12)


def test_merged_equals_all_at_once():
    rng = np.random.default_rng(0)
    scores, labels = torch.from_numpy(rng.normal(size=40)), torch.from_numpy(rng.integers(0, 2, 40))
    first, second = ImageMetrics(), ImageMetrics()
    first.update(scores[:11], labels[:11])
    second.update(scores[11:], labels[11:])
    second.merge(first)
    assert second.compute() == measure(scores, labels)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_undefined(label):
    found = measure(np.array([0.1, 0.9]), np.full(2, label))
    assert list(found) == ["image_auroc", "image_ap", "image_f1_max"]
    assert all(np.isnan(value) for value in found.values())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`scores` contains NaN"):
        ImageMetrics().update(np.array([np.nan]), np.array([1]))
    with pytest.raises(ValueError, match=r"`labels` has shape \(2,\), but the scores have \(1,\)"):
        ImageMetrics().update(np.array([0.5]), np.array([1, 0]))
    with pytest.raises(ValueError, match="contains 2"):
        ImageMetrics().update(np.array([0.5]), np.array([2]))
