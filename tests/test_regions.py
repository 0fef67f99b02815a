"""Connected regions against a flood fill, pixel by pixel, and boxes that can be counted by hand."""

import time

import numpy as np
import pytest
from regions_reference import flood_fill

from moeclip_hf.regions_moeclip import find_boxes, label_regions


def spiral(size):
    """One region that winds inwards, so that most of its runs belong together only by long detours."""
    mask = np.zeros((size, size), dtype=bool)
    for ring in range(0, size // 2, 2):
        mask[ring, max(ring - 2, 0) : size - ring] = True
        mask[ring : size - ring, size - 1 - ring] = True
        mask[size - 1 - ring, ring : size - ring] = True
        mask[ring + 2 : size - ring, ring] = True
    return mask


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (13, 31), (40, 17)])
def test_regions_are_those_of_a_flood_fill(shape, density):
    for seed in range(8):
        mask = np.random.default_rng(seed).random(shape) < density
        labels, count = label_regions(mask)
        expected, expected_count = flood_fill(mask)
        assert count == expected_count
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("turns", range(4))
def test_long_detours_are_one_region(turns):
    mask = np.rot90(spiral(41), turns).copy()
    assert flood_fill(mask)[1] == 1
    labels, count = label_regions(mask)
    assert count == 1
    np.testing.assert_array_equal(labels, mask)


def test_comb_joins_at_its_last_row():
    mask = np.zeros((20, 61), dtype=bool)
    mask[:, ::2] = True
    assert label_regions(mask)[1] == 31
    mask[-1] = True
    assert label_regions(mask)[1] == 1


def test_corners_touch_and_the_end_of_a_row_is_not_the_start_of_the_next():
    assert label_regions(np.array([[1, 0], [0, 1]], dtype=bool))[1] == 1
    assert label_regions(np.array([[0, 0, 1], [1, 0, 0]], dtype=bool))[1] == 2


def test_nothing_and_everything():
    labels, count = label_regions(np.zeros((3, 4), dtype=bool))
    assert (count, labels.any()) == (0, False)
    assert find_boxes(np.zeros((3, 4), dtype=bool), np.zeros((3, 4))) == []
    (found,) = find_boxes(np.ones((3, 4), dtype=bool), np.full((3, 4), 2.5))
    assert found == {"box": (0, 0, 4, 3), "score": 2.5}


def test_boxes_and_scores():
    anomaly_map = np.array(
        [
            [-9.0, -1.0, -9.0, -9.0, -3.0],
            [-9.0, -2.0, -9.0, -9.0, -3.5],
            [-1.5, -9.0, -9.0, -9.0, -9.0],
            [-9.0, -9.0, -9.0, -0.5, -9.0],
        ]
    )
    assert find_boxes(anomaly_map > -5, anomaly_map) == [
        {"box": (3, 3, 4, 4), "score": -0.5},
        {"box": (0, 0, 2, 3), "score": -1.0},
        {"box": (4, 0, 5, 2), "score": -3.0},
    ]


def test_boxes_of_random_masks():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask, anomaly_map = rng.random((25, 18)) < 0.3, rng.normal(size=(25, 18))
        labels, count = flood_fill(mask)
        expected = []
        for number in range(1, count + 1):
            ys, xs = (labels == number).nonzero()
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            expected.append({"box": tuple(map(int, box)), "score": float(anomaly_map[labels == number].max())})
        expected.sort(key=lambda found: -found["score"])
        assert find_boxes(mask, anomaly_map) == expected


def test_a_large_mask_takes_a_moment():
    """Some 70,000 regions: a walk from pixel to pixel takes minutes."""
    rng = np.random.default_rng(0)
    mask = rng.random((1000, 1000)) < 0.2
    started = time.perf_counter()
    boxes = find_boxes(mask, rng.normal(size=mask.shape))
    assert len(boxes) > 50_000
    assert time.perf_counter() - started < 20
