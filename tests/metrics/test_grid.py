"""Every sample that the grid counts lies in the bin that it is counted in."""

import numpy as np
import pytest

from moeclip_hf.metrics.bins import Bins, last_patterns, to_patterns, to_scores
from moeclip_hf.metrics.grid import ScoreGrid


SHAPES = {
    "normal": lambda z: z,
    "float32": lambda z: z.astype(np.float32),
    "positive": lambda z: 3 + np.abs(z),
    "far offset": lambda z: 1e9 + 1e-3 * z,
    "negative offset": lambda z: -1000 + z,
    "tiny": lambda z: 1e-300 * z,
    "huge": lambda z: 1e307 * z,
    "infinite": lambda z: np.where(np.abs(z) > 1, np.copysign(np.inf, z), z),
    "one score": lambda z: np.full_like(z, 7.25),
    "heavy tail": lambda z: np.tan(np.pi * np.tanh(0.3 * z) / 2),
    "log-normal": lambda z: np.exp(4 * z),
}


def bins_of(scores):
    patterns, counts = np.unique(to_patterns(scores), return_counts=True)
    return Bins(patterns, np.zeros(len(patterns), np.uint8), counts[None].astype(float))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_cells", [5, 100, 4096])
def test_counts_are_those_of_the_bins(shape, num_cells):
    rng = np.random.default_rng(0)
    grid = ScoreGrid(bins_of(SHAPES[shape](rng.normal(size=5000))), 0.01, num_cells)
    counted = []
    for _ in range(3):
        scores = SHAPES[shape](rng.normal(size=4000))
        left = grid.count(scores)
        values, counts = np.unique(np.concatenate([scores, left]), return_counts=True)
        number_left = dict(zip(*np.unique(left, return_counts=True), strict=True))
        counted.append(np.repeat(values, counts - 2 * np.array([number_left.get(value, 0) for value in values])))
    bins, patterns = grid.to_bins(), to_patterns(np.concatenate(counted))
    last = last_patterns(bins)
    assert (np.diff(bins.starts) > 0).all()
    assert (bins.starts[1:] > last[:-1]).all()
    inside = [((patterns >= start) & (patterns <= end)).sum() for start, end in zip(bins.starts, last, strict=True)]
    assert bins.weights[0].tolist() == inside
    assert len(patterns) == bins.weights.sum()


def test_most_scores_need_no_sorting_and_no_cell_takes_too_many():
    rng = np.random.default_rng(0)
    grid = ScoreGrid(bins_of(rng.normal(size=2**16)), 2**-10, 2**11)
    left = [len(grid.count(rng.normal(size=2**14))) for _ in range(4)]
    assert max(left) < 0.2 * 2**14
    assert grid.to_bins().weights.max() <= 2 * 2**-10 * 2**16
    # A second such lot finds the cells full.
    left = [len(grid.count(rng.normal(size=2**14))) for _ in range(16)]
    assert left[-1] > 0.5 * 2**14
    assert grid.to_bins().weights.max() <= 2 * 2**-10 * 2**16


def test_patterns_sort_like_scores_and_come_back():
    scores = np.array([-np.inf, -1e300, -2.5, -1e-310, 0.0, 1e-310, 1.0, np.nextafter(1, 2), 1e300, np.inf])
    patterns = to_patterns(scores)
    assert (np.diff(patterns.astype(object)) > 0).all()
    assert to_scores(patterns).tolist() == scores.tolist()
