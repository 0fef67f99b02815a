"""Pixel metrics against scikit-learn and scipy, on every shape of score and in every order."""

import copy
import pickle
import time

import numpy as np
import pytest
import reference_metrics as reference
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from moeclip_hf.metrics import PixelMetrics, histogram
from moeclip_hf.metrics.curves import aupro, auroc, average_precision, f1_max


SHAPES = {
    "normal": lambda z: z,
    "tiny": lambda z: 1e-12 * z,
    "huge": lambda z: 1e300 * z,
    "far offset": lambda z: 1e9 + 1e-3 * z,
    "negative offset": lambda z: -1000 + z,
    "heavy tail": lambda z: np.tan(np.pi * np.tanh(0.3 * z) / 2),
    "heavy tail on an offset": lambda z: 1000 + np.tan(np.pi * np.tanh(0.3 * z) / 2),
    "log-normal": lambda z: np.exp(4 * z),
    "saturated": lambda z: 1 / (1 + np.exp(-6 * z)),
    "coarse ties": lambda z: np.round(2 * z),
    "with infinities": lambda z: np.where(np.abs(z) > 2, np.copysign(np.inf, z), z),
}


def draw(shape=(6, 24, 24), seed=0, gap=1.0):
    rng = np.random.default_rng(seed)
    masks = np.zeros(shape, dtype=bool)
    largest = max(5, shape[1] // 3)
    for mask in masks[: shape[0] // 2]:
        for _ in range(3):
            row, column = rng.integers(0, shape[1] - 4), rng.integers(0, shape[2] - 4)
            mask[row : row + rng.integers(1, largest), column : column + rng.integers(1, largest)] = True
    return rng.normal(size=shape) + gap * masks, masks


def measure(maps, masks, batch_size=None, **options):
    metrics = PixelMetrics(**options)
    for start in range(0, len(maps), batch_size or len(maps)):
        metrics.update(
            maps[start : start + (batch_size or len(maps))], masks[start : start + (batch_size or len(maps))]
        )
    return metrics.compute()


def for_sklearn(maps):
    """scikit-learn takes no infinities and ranks alone matter: the ranks of the scores."""
    return np.unique(maps, return_inverse=True)[1].reshape(maps.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference(shape, seed):
    maps, masks = draw(seed=seed)
    maps = SHAPES[shape](maps)
    expected = reference.pixel_metrics(for_sklearn(maps), masks)
    assert measure(maps, masks) == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def small_buffer(monkeypatch):
    """Lets the histogram sort and count after some ten thousand pixels instead of millions."""
    monkeypatch.setattr(histogram, "_BUFFER_SIZE", 2**15)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "with infinities"])
def test_accuracy_with_many_more_scores_than_bins(shape, small_buffer):
    maps, masks = draw(shape=(6, 250, 250))
    maps = SHAPES[shape](maps)
    expected = reference.ranking_metrics("pixel", for_sklearn(maps), masks)
    expected["pixel_aupro"] = measure(maps, masks, capacity=None)["pixel_aupro"]
    found = measure(maps, masks, batch_size=1, capacity=2**16)
    assert found["pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-5)
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("shape", ["normal", "heavy tail on an offset", "log-normal", "saturated", "coarse ties"])
def test_order_batches_and_merges_make_no_difference(shape, small_buffer):
    maps, masks = draw(shape=(16, 150, 150))
    maps = SHAPES[shape](maps)
    expected = measure(maps, masks, capacity=2**15)
    # From the lowest to the highest and back, so that the range grows all the time; then one class before the other.
    by_score, by_class = np.argsort(maps.max(axis=(1, 2))), np.argsort(masks.any(axis=(1, 2)))
    for order in (by_score, by_score[::-1], by_class, by_class[::-1]):
        for batch_size in (1, 5):
            found = measure(maps[order], masks[order], batch_size, capacity=2**15)
            assert found == pytest.approx(expected, abs=1e-6)
    parts = [PixelMetrics(capacity=2**15) for _ in range(4)]
    for index, part in enumerate(parts):
        part.update(maps[index::4], masks[index::4])
    for merged_order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        merged = PixelMetrics(capacity=2**15)
        for index in merged_order:
            merged.merge(parts[index])
        assert merged.compute() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num_anomalous", [1, 20, 500])
@pytest.mark.parametrize("shape", ["normal", "heavy tail on an offset", "log-normal"])
def test_order_makes_no_difference_with_few_anomalous_pixels(shape, num_anomalous, small_buffer):
    rng = np.random.default_rng(num_anomalous)
    scores = SHAPES[shape](rng.normal(size=2**19))
    truth = np.zeros(len(scores), dtype=bool)
    truth[rng.permutation(len(scores))[:num_anomalous]] = True
    found = []
    for order in (slice(None), np.argsort(scores), np.argsort(scores)[::-1], np.argsort(truth), np.argsort(~truth)):
        maps, masks = scores[order].reshape(-1, 128, 128), truth[order].reshape(-1, 128, 128)
        found.append(measure(maps, masks, batch_size=1, aupro=False, capacity=2**15))
    for result in found[1:]:
        assert result == pytest.approx(found[0], abs=1e-6)


def test_pixels_in_ascending_order(small_buffer):
    scores = np.random.default_rng(0).standard_cauchy(2**18)
    truth = np.random.default_rng(1).uniform(size=len(scores)) < 0.5 + np.arctan(scores) / 4
    expected = measure(scores[None, None], truth[None, None], aupro=False, capacity=None)
    for order in (np.argsort(scores), np.argsort(scores)[::-1]):
        maps, masks = scores[order].reshape(-1, 64, 64), truth[order].reshape(-1, 64, 64)
        found = measure(maps, masks, batch_size=1, aupro=False, capacity=2**15)
        assert found["pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-5)
        assert found == pytest.approx(expected, abs=1e-3)


def test_computing_in_between_changes_nothing(small_buffer):
    maps, masks = draw(shape=(6, 200, 200))
    metrics = PixelMetrics(capacity=2**15)
    for index in range(6):
        metrics.update(maps[index : index + 1], masks[index : index + 1])
        result = metrics.compute()
        assert metrics.compute() == result
    assert result == pytest.approx(measure(maps, masks, capacity=2**15), abs=1e-6)


@pytest.mark.parametrize("capacity", [1, 2, 3, 50])
def test_any_capacity_keeps_counts_and_bounds(capacity, small_buffer):
    maps, masks = draw(shape=(4, 70, 70))
    metrics = PixelMetrics(capacity=capacity)
    for shift in (-1e300, 0, 1e300):
        metrics.update(maps + shift, masks)
    weights = [part.compute().weights for part in (metrics._normal, metrics._anomalous)]
    assert [part[0].sum() for part in weights] == [3 * (~masks).sum(), 3 * masks.sum()]
    assert all(part.shape[1] <= capacity for part in weights)


def test_merging_leaves_the_other_as_it_is_and_survives_pickling():
    maps, masks = draw()
    first, second = PixelMetrics(), PixelMetrics()
    first.update(maps[:2], masks[:2])
    second.update(maps[2:], masks[2:])
    before = copy.deepcopy(second).compute()
    first.merge(pickle.loads(pickle.dumps(second)))
    first_result = first.compute()
    second.merge(PixelMetrics())
    assert second.compute() == pytest.approx(before, nan_ok=True)
    assert first_result == pytest.approx(measure(maps, masks))


def test_memory_does_not_grow_with_the_number_of_images(small_buffer):
    metrics, sizes = PixelMetrics(capacity=2**13), []
    for seed in range(120):
        metrics.update(*draw(shape=(4, 64, 64), seed=seed))
        sizes.append(len(pickle.dumps(metrics)))
    # In each of two histograms 8 + 1 + 2 * 8 bytes a bin, kept or new, and 2 * 8 a cell of the grid, two for each bin;
    # 8 a buffered pixel and 8 for its share of a region.
    assert max(sizes) < 2 * 2**13 * (2 * 25 + 2 * 16) + 2 * 2**15 * 16
    assert 120 * 4 * 64 * 64 * 8 > 6 * max(sizes)


def test_ties_count_half_and_every_region_once():
    maps = np.array([[[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]])
    masks = np.array([[[True, False, False, True, True, True]]])
    found = measure(maps, masks)
    # Pairs of (anomalous, normal): 1 ties 1, 1 beats 0, three 0 lose to 1, three 0 tie 0.
    assert found["pixel_auroc"] == (0.5 + 1 + 0 + 1.5) / 8
    assert found["pixel_ap"] == pytest.approx(1 / 4 * 1 / 2 + 3 / 4 * 4 / 6)
    assert found["pixel_f1_max"] == pytest.approx(2 * 4 / (4 + 2 + 4))
    # One of two regions is found at a false-positive rate of 1/2: at 0.3 the mean overlap is 0.3, its mean until there 0.15.
    assert found["pixel_aupro"] == pytest.approx(0.15)


def test_pixels_that_touch_at_a_corner_are_one_region_but_not_those_of_two_images():
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[1, 1, 1] = True
    maps = np.where(masks, 0.0, 1.0)
    maps[0, 0, 0] = maps[1, 1, 1] = 2.0
    # Found before any false positive: half of the first region, all of the second; the rest with all normal pixels.
    assert measure(maps, masks)["pixel_aupro"] == pytest.approx(0.75)


def test_zeros_of_both_signs_are_equal():
    assert measure(np.array([[[0.0, -0.0]]]), np.array([[[False, True]]]))["pixel_auroc"] == 0.5


@pytest.mark.parametrize("masks", [np.zeros((1, 2, 2)), np.ones((1, 2, 2))])
def test_one_class_is_undefined(masks):
    assert all(np.isnan(value) for value in measure(np.zeros((1, 2, 2)), masks).values())


def test_nothing_and_one_pixel_are_undefined():
    assert all(np.isnan(value) for value in PixelMetrics().compute().values())
    assert all(np.isnan(value) for value in measure(np.zeros((1, 1, 1)), np.ones((1, 1, 1))).values())


def test_all_scores_equal():
    maps, masks = np.full((1, 2, 5), 7.0), np.zeros((1, 2, 5), dtype=bool)
    masks[0, 0, :2] = True
    found = measure(maps, masks)
    assert found == pytest.approx({"pixel_auroc": 0.5, "pixel_ap": 0.2, "pixel_f1_max": 1 / 3, "pixel_aupro": 0.15})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_takes_torch_and_numpy_alike(dtype):
    maps, masks = draw()
    maps, masks = torch.from_numpy(maps).to(dtype).requires_grad_(), torch.from_numpy(masks)
    assert measure(maps, masks.long()) == measure(maps.detach().double().numpy(), masks.numpy())


def test_bad_input_is_named():
    metrics, maps, masks = PixelMetrics(), np.zeros((1, 2, 2)), np.zeros((1, 2, 2), dtype=bool)
    with pytest.raises(ValueError, match="`maps` contains NaN"):
        metrics.update(np.full((1, 2, 2), np.nan), masks)
    with pytest.raises(ValueError, match=r"`maps` must have 3 dimensions, but got shape \(2, 2\)"):
        metrics.update(maps[0], masks[0])
    with pytest.raises(ValueError, match=r"`masks` has shape \(1, 2, 3\)"):
        metrics.update(maps, np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="must be bool or 0 and 1, but contains -100"):
        metrics.update(maps, np.full((1, 2, 2), -100))
    other = PixelMetrics(aupro=False)
    other.update(maps, masks)
    with pytest.raises(ValueError, match=r"of \(`aupro`, `capacity`\) \(True, 524288\) and \(False, 524288\)"):
        metrics.merge(other)
    with pytest.raises(ValueError, match=r"and \(True, 7\): they must be equal"):
        metrics.merge(PixelMetrics(capacity=7))
    assert not metrics._normal.compute().weights.any()  # nothing was taken over
    assert all(np.isnan(value) for value in metrics.compute().values())


def test_curves_equal_hand_computed_numbers():
    normal, anomalous = np.array([2.0, 1, 1, 0]), np.array([0.0, 1, 0, 1])
    assert auroc(normal, anomalous) == (4 + 2.5) / 8
    assert average_precision(normal, anomalous) == 1 / 2 * 1 + 1 / 2 * 2 / 4
    assert f1_max(normal, anomalous) == pytest.approx(2 / 3)
    # Falling thresholds give the points (0, 1/2), (1/4, 1/2), (1/2, 1), (1, 1) of overlap over false-positive rate.
    assert aupro(normal, anomalous / 2, max_fpr=0.5) == pytest.approx((0.25 * 0.5 + 0.25 * 0.75) / 0.5)
    assert aupro(normal, anomalous / 2, max_fpr=0.25) == pytest.approx(0.5)


# ---- at full size ----


@pytest.mark.slow
@pytest.mark.parametrize("num_anomalous", [1, 30, 500, 120_000])
@pytest.mark.parametrize("shape", ["normal", "heavy tail on an offset", "log-normal", "heavy tail"])
def test_millions_of_pixels_in_any_order(shape, num_anomalous):
    rng = np.random.default_rng(num_anomalous)
    scores = SHAPES[shape](rng.normal(size=2**22))
    truth = np.zeros(len(scores), dtype=bool)
    truth[np.argsort(scores)[-4 * num_anomalous :][rng.permutation(4 * num_anomalous)[:num_anomalous]]] = True
    expected = reference.ranking_metrics("pixel", scores, truth)
    found = []
    for order in (rng.permutation(len(scores)), np.argsort(scores), np.argsort(scores)[::-1], np.argsort(truth)):
        maps, masks = scores[order].reshape(-1, 512, 512), truth[order].reshape(-1, 512, 512)
        found.append(measure(maps, masks, batch_size=1, aupro=False))
    for result in found:
        assert result["pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-5)
        assert result == pytest.approx(expected, abs=1e-3)
        assert result == pytest.approx(found[0], abs=1e-6)


@pytest.mark.slow
def test_ten_times_faster_than_scikit_learn():
    rng = np.random.default_rng(0)
    masks = np.zeros((200, 500, 500), dtype=bool)
    masks[::2, 100:180, 100:180] = True
    maps = rng.standard_normal(masks.shape, dtype=np.float32) + masks.astype(np.float32)
    started = time.perf_counter()
    found = measure(maps, masks, batch_size=4)
    mine = time.perf_counter() - started
    started = time.perf_counter()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-5)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-3)
    assert time.perf_counter() - started > 10 * mine
