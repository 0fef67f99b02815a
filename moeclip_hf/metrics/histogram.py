"""A histogram of scores that needs no bounds and keeps its resolution where the scores are, in a fixed memory."""

import numpy as np

from .bins import Bins, join, last_patterns, limits, merge_all, merge_down, run_starts, to_patterns
from .grid import ScoreGrid


# Samples that are held back to be counted at once.
_BUFFER_SIZE = 2**21
# Highest share of the samples in a bin of several scores that is kept, times the capacity. Bins of half that share can
# be too many to be merged with their neighbour, so with 1 the capacity would not suffice.
_KEPT_SHARE = 2
# By how much the final bins are larger than those that are kept, which lie within them as they grow to twice their
# share at most.
_FINAL_FACTOR = 4


class ScoreHistogram:
    r"""Counts the samples of one class by score: exact up to `capacity` distinct scores, adaptive beyond.

    When more than `capacity` bins are occupied, neighbours that make up a larger bin are merged if it holds no more than
    a small share of the samples. So a bin is always a short piece of the ranking, whatever the range, the offset and
    the tails of the scores. Where these are densest, a [`ScoreGrid`] counts them without sorting.

    `compute` merges further, to bins several times larger than those that are kept. These are the largest intervals
    with no more than a certain share of the samples. They depend on all samples together and not on the order in which
    they came, since the kept bins do not cross their ends.

    Args:
        num_extra (`int`, *optional*, defaults to 0): weights of a sample that are added up beside its count.
        capacity (`int`, *optional*): highest number of bins; without it every distinct score keeps its own.
    """

    def __init__(self, num_extra: int = 0, capacity: int | None = None):
        self.num_extra = num_extra
        self.capacity = capacity
        self._bins = Bins(np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty((1 + num_extra, 0)))
        self._new_bins: list[Bins] = []
        self._grid: ScoreGrid | None = None
        self._num_new = 0
        self._buffer: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_buffered = 0

    def __getstate__(self) -> dict:
        # Copies and what is sent to another process hold the bins alone, neither buffer nor grid.
        self._insert_new_bins()
        return self.__dict__

    def update(self, scores: np.ndarray, extra: np.ndarray | None = None) -> None:
        """Adds samples.

        Args:
            scores (`np.ndarray` of shape `(num_samples,)`): floating point, none of them NaN; not to be changed.
            extra (`np.ndarray` of shape `(num_extra, num_samples)`, *optional*): further weights of the samples.
        """
        self._buffer.append((scores, np.empty((0, len(scores))) if extra is None else extra))
        self._num_buffered += len(scores)
        if self._num_buffered >= _BUFFER_SIZE:
            self._count_buffer()

    def merge(self, other: "ScoreHistogram") -> None:
        """Adds all that another histogram holds; the other stays as it is.

        Args:
            other (`ScoreHistogram`): a histogram with the same number of extra weights and the same capacity.
        """
        other._insert_new_bins()
        self._new_bins.append(other._bins)
        self._insert_new_bins()

    def compute(self) -> Bins:
        """Gives the occupied bins.

        Returns:
            [`Bins`]: single scores up to `capacity` of them, intervals beyond.
        """
        self._insert_new_bins()
        if not self._bins.widths.any():
            return self._bins
        return merge_all(self._bins, _FINAL_FACTOR * _KEPT_SHARE / self.capacity)

    def _count_buffer(self) -> None:
        if not self._buffer:
            return
        scores, extra = (np.concatenate(parts, axis=-1) for parts in zip(*self._buffer, strict=True))
        self._num_new += self._num_buffered
        self._buffer, self._num_buffered = [], 0
        if self.num_extra:
            order = np.argsort(scores)
            scores, extra = scores[order], extra[:, order]
        else:
            scores = np.sort(self._count_on_grid(scores))
            extra = np.empty((0, len(scores)))
        self._add(scores, extra)
        # An insertion moves all bins, so it waits until there is enough to insert, or until the limits have doubled.
        num_bins = sum(len(bins.starts) for bins in self._new_bins)
        if num_bins >= len(self._bins.starts) or self._num_new >= self._bins.weights[0].sum():
            self._insert_new_bins()

    def _count_on_grid(self, scores: np.ndarray) -> np.ndarray:
        if not self._bins.widths.any():
            return scores
        if self._grid is None:
            self._grid = ScoreGrid(self._bins, _KEPT_SHARE / self.capacity, 2 * self.capacity + 4)
        return self._grid.count(scores)

    def _add(self, scores: np.ndarray, extra: np.ndarray) -> None:
        """Adds sorted scores to the bins that have room for them and makes new bins of the others."""
        # Row by row the summed weights of the scores before each, (1 + num_extra, num_scores + 1).
        cumulative = np.zeros((1 + self.num_extra, len(scores) + 1))
        cumulative[0] = np.arange(len(scores) + 1)
        np.cumsum(extra, axis=1, out=cumulative[1:, 1:])
        patterns, bins = to_patterns(scores), self._bins
        is_left = np.ones(len(patterns), dtype=bool)
        if len(bins.starts):
            low = np.searchsorted(patterns, bins.starts)
            high = np.searchsorted(patterns, last_patterns(bins), side="right")
            high[:-1] = np.minimum(high[:-1], low[1:])
            added = cumulative[:, high] - cumulative[:, low]
            if bins.widths.any():
                most = 2 * limits(bins.weights, _KEPT_SHARE / self.capacity)
                # A bin of one score takes all that have it; so does any bin at its first one.
                full = np.flatnonzero((bins.widths > 0) & (bins.weights + added > most).any(axis=0))
                high[full] = np.searchsorted(patterns, bins.starts[full], side="right")
                added[:, full] = cumulative[:, high[full]] - cumulative[:, low[full]]
            bins.weights[:] += added
            occupied = high > low
            steps = np.zeros(len(patterns) + 1, dtype=np.int8)
            steps[low[occupied]] += 1
            steps[high[occupied]] -= 1
            is_left = np.cumsum(steps[:-1], dtype=np.int8) == 0
        left = np.flatnonzero(is_left)
        first = run_starts(patterns[left])
        begin, length = left[first], np.diff(first, append=len(left))
        weights = cumulative[:, begin + length] - cumulative[:, begin]
        self._new_bins.append(Bins(patterns[begin], np.zeros(len(begin), np.uint8), weights))

    def _insert_new_bins(self) -> None:
        self._count_buffer()
        if self._grid is not None:
            self._new_bins.append(self._grid.to_bins())
            self._grid = None
        if self._new_bins:
            self._bins, self._new_bins, self._num_new = join([self._bins, *self._new_bins]), [], 0
            if self.capacity is not None and len(self._bins.starts) > self.capacity:
                self._bins = merge_down(self._bins, _KEPT_SHARE / self.capacity, self.capacity)
