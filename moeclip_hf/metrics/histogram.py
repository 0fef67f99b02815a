"""A histogram of scores that needs no bounds and keeps its resolution where the scores are, in a fixed memory."""

from typing import NamedTuple

import numpy as np


_ALL_BITS = np.uint64(2**64 - 1)
# Samples that are held back to be sorted and counted at once.
_BUFFER_SIZE = 2**21
# By how much the final bins may be larger than those that are kept: enough that luck in what came first, which may let
# a bin grow to twice its share, stays inside of them.
_FINAL_FACTOR = 8


class ScoreHistogram:
    r"""Counts normal and anomalous samples by score: exact up to `capacity` distinct scores, adaptive beyond.

    A score is known by its pattern, the 64 bits of its float64 value rearranged so that they sort like the numbers. A
    bin is an interval of patterns with the same leading bits. When more than `capacity` bins are occupied, neighbours
    that make up a larger such interval are merged if it holds no more than a small share of the samples of either
    class. So a bin is always a short piece of both classes' rankings, whatever the range, the offset and the tails of
    the scores.

    `compute` merges further, to bins several times larger than those that are kept. Which samples fall into one of
    these does not depend on the order in which they came, since the smaller bins within it do not cross its ends. With
    only some hundred anomalous samples among millions they may not stay within: then the AUROC moves by up to 2e-6.

    Args:
        num_extra (`int`, *optional*, defaults to 0): weights of an anomalous sample to be added up beside its count.
        capacity (`int`, *optional*): highest number of bins; without it every distinct score keeps its own.
    """

    def __init__(self, num_extra: int = 0, capacity: int | None = None):
        self.num_extra = num_extra
        self.capacity = capacity
        self._bins = _Bins(np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty((2 + num_extra, 0)))
        self._new_bins: list[_Bins] = []
        self._buffer: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._num_buffered = 0

    def update(self, normal: np.ndarray, anomalous: np.ndarray, extra: np.ndarray | None = None) -> None:
        """Adds samples.

        Args:
            normal (`np.ndarray` of shape `(num_normal,)`): floating point scores, none of them NaN; not to be changed.
            anomalous (`np.ndarray` of shape `(num_anomalous,)`): likewise.
            extra (`np.ndarray` of shape `(num_extra, num_anomalous)`, *optional*): further weights of the anomalous.
        """
        self._buffer.append((normal, anomalous, np.empty((0, len(anomalous))) if extra is None else extra))
        self._num_buffered += len(normal) + len(anomalous)
        if self._num_buffered >= _BUFFER_SIZE:
            self._count_buffer()

    def merge(self, other: "ScoreHistogram") -> None:
        """Adds all that another histogram holds; the other stays as it is.

        Args:
            other (`ScoreHistogram`): a histogram with the same number of extra weights and the same capacity.

        Raises:
            ValueError: if the two differ in one of these.
        """
        mine, theirs = ((histogram.num_extra, histogram.capacity) for histogram in (self, other))
        if mine != theirs:
            raise ValueError(f"cannot merge histograms of (number of extra weights, capacity) {mine} and {theirs}.")
        other._insert_new_bins()
        self._new_bins.append(other._bins)
        self._insert_new_bins()

    def compute(self) -> np.ndarray:
        """Gives the weights of all occupied bins.

        Returns:
            `np.ndarray` of shape `(2 + num_extra, num_bins)`: number of normal and of anomalous samples and sums of
            the extra weights, lowest scores first.
        """
        self._insert_new_bins()
        if not self._bins.widths.any():
            return self._bins.weights
        return _merge_all(self._bins, self.capacity / _FINAL_FACTOR).weights

    def _count_buffer(self) -> None:
        if not self._buffer:
            return
        normal, anomalous, extra = (np.concatenate(parts, axis=-1) for parts in zip(*self._buffer, strict=True))
        self._buffer, self._num_buffered = [], 0
        order = np.argsort(anomalous)
        self._add(np.sort(normal), np.arange(len(normal) + 1)[None], slice(0, 1))
        weights = np.concatenate([np.ones((1, len(order))), extra[:, order]])
        self._add(anomalous[order], np.cumsum(np.pad(weights, ((0, 0), (1, 0))), axis=1), slice(1, None))
        if sum(len(bins.starts) for bins in self._new_bins) >= len(self._bins.starts):
            # An insertion moves all bins, so it waits until there is enough to insert.
            self._insert_new_bins()

    def _add(self, scores: np.ndarray, cumulative: np.ndarray, rows: slice) -> None:
        """Adds sorted scores of one class to the bins that have room for them and makes new bins of the others.

        `cumulative` (num_rows, num_scores + 1) are the summed weights of the scores before each.
        """
        patterns, bins = _to_patterns(scores), self._bins
        is_left = np.ones(len(patterns), dtype=bool)
        if len(bins.starts):
            low = np.searchsorted(patterns, bins.starts)
            high = np.searchsorted(patterns, _last_patterns(bins), side="right")
            high[:-1] = np.minimum(high[:-1], low[1:])
            limits = 2 * _limits(bins.weights, self.capacity)[rows.start] if bins.widths.any() else 0
            # A bin of one score takes all that have it; so does any bin at its first one.
            full = np.flatnonzero((bins.widths > 0) & (bins.weights[rows][0] + high - low > limits))
            high[full] = np.searchsorted(patterns, bins.starts[full], side="right")
            bins.weights[rows] += cumulative[:, high] - cumulative[:, low]
            occupied = high > low
            steps = np.zeros(len(patterns) + 1, dtype=np.int8)
            steps[low[occupied]] += 1
            steps[high[occupied]] -= 1
            is_left = np.cumsum(steps[:-1], dtype=np.int8) == 0
        left = np.flatnonzero(is_left)
        first = _run_starts(patterns[left])
        begin, length = left[first], np.diff(first, append=len(left))
        new = _Bins(patterns[begin], np.zeros(len(begin), np.uint8), np.zeros((len(bins.weights), len(begin))))
        new.weights[rows] = cumulative[:, begin + length] - cumulative[:, begin]
        self._new_bins.append(new)

    def _insert_new_bins(self) -> None:
        self._count_buffer()
        if self._new_bins:
            self._bins, self._new_bins = _join([self._bins, *self._new_bins]), []
            if self.capacity is not None and len(self._bins.starts) > self.capacity:
                self._bins = _merge_down(self._bins, self.capacity)


class _Bins(NamedTuple):
    """Intervals of patterns in ascending order: first pattern, number of free trailing bits, and summed weights."""

    starts: np.ndarray
    widths: np.ndarray
    weights: np.ndarray


def _limits(weights: np.ndarray, resolution: float, places: np.ndarray | slice = slice(None)) -> list[np.ndarray]:
    """Gives the highest number of normal and of anomalous samples in a bin of several scores at each place."""
    limits = []
    for counts, share in zip(weights[:2], (4, 16), strict=True):
        at_or_below = np.cumsum(counts)
        higher = at_or_below[-1] - at_or_below[places]
        # Where few score higher, each of them counts for the precision.
        limits.append(np.minimum(at_or_below[-1], 64 * (higher + 1)) * (share / resolution))
    return limits


def _join(parts: list[_Bins]) -> _Bins:
    starts, widths, weights = (np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True))
    order = np.argsort(starts, kind="stable")
    starts, widths, weights = starts[order], widths[order], weights[:, order]
    first = _run_starts(starts)
    if len(first) < len(starts):
        widths, weights = np.maximum.reduceat(widths, first), np.add.reduceat(weights, first, axis=1)
    return _Bins(starts[first], widths, weights)


def _merge_down(bins: _Bins, capacity: int) -> _Bins:
    """Merges bins until they are clearly fewer than `capacity`."""
    resolution = capacity
    while len(bins.starts) > max(capacity * 3 // 4, 1):
        merged = _merge_pairs(bins, resolution)
        if len(merged.starts) == len(bins.starts):
            resolution /= 2
        bins = merged
    return bins


def _merge_all(bins: _Bins, resolution: float) -> _Bins:
    """Merges bins until no two can be merged within the limits."""
    while True:
        merged = _merge_pairs(bins, resolution)
        if len(merged.starts) == len(bins.starts):
            return merged
        bins = merged


def _merge_pairs(bins: _Bins, resolution: float) -> _Bins:
    """Merges each two neighbours that are alone in the smallest interval around them and together within the limits."""
    joints = bins.starts[1:] ^ bins.starts[:-1]
    # Of three neighbours the closer two differ in lower bits: a joint lower than both beside it has no third bin inside.
    is_pair = np.ones(len(joints), dtype=bool)
    is_pair[1:] &= joints[1:] < joints[:-1]
    is_pair[:-1] &= joints[:-1] < joints[1:]
    left = np.flatnonzero(is_pair)
    sums = bins.weights[:, left] + bins.weights[:, left + 1]
    most_normal, most_anomalous = _limits(bins.weights, resolution, left + 1)
    is_small = (sums[0] <= most_normal) & (sums[1] <= most_anomalous)
    left, sums = left[is_small], sums[:, is_small]
    is_kept = np.ones(len(bins.starts), dtype=bool)
    is_kept[left + 1] = False
    starts, widths, weights = bins.starts[is_kept], bins.widths[is_kept], bins.weights[:, is_kept]
    # Each pair before this one has lost a bin.
    merged = left - np.arange(len(left))
    widths[merged] = np.maximum(np.maximum(widths[merged], bins.widths[left + 1]), _num_bits(joints[left]))
    starts[merged] = (starts[merged] >> widths[merged].astype(np.uint64)) << widths[merged].astype(np.uint64)
    weights[:, merged] = sums
    return _Bins(starts, widths, weights)


def _last_patterns(bins: _Bins) -> np.ndarray:
    # Shifted in two steps, since a shift by all 64 bits at once is not defined.
    return bins.starts | ~(
        (_ALL_BITS << (bins.widths // 2).astype(np.uint64)) << ((bins.widths + 1) // 2).astype(np.uint64)
    )


def _to_patterns(scores: np.ndarray) -> np.ndarray:
    # Adding 0 turns -0.0 into 0.0, which is equal to it and must have its pattern.
    bits = (scores.astype(np.float64) + 0.0).view(np.int64)
    # The bits of negative numbers sort backwards, so all of them are flipped; of the others the sign is.
    return (bits ^ ((bits >> 63) | np.int64(-(2**63)))).view(np.uint64)


def _num_bits(patterns: np.ndarray) -> np.ndarray:
    """Gives the place of the highest set bit, counted from 1."""
    # In halves, since a float64 holds no more than 53 bits exactly.
    high, low = patterns >> np.uint64(32), patterns & np.uint64(2**32 - 1)
    return np.where(high > 0, 32 + np.frexp(high.astype(np.float64))[1], np.frexp(low.astype(np.float64))[1])


def _run_starts(values: np.ndarray) -> np.ndarray:
    """Finds the first of each run of equal neighbours."""
    return np.flatnonzero(np.concatenate([np.ones(min(len(values), 1), dtype=bool), values[1:] != values[:-1]]))
