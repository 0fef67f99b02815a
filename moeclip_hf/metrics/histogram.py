"""A histogram of scores that needs no bounds and keeps as much resolution as a fixed memory allows."""

import numpy as np


class ScoreHistogram:
    r"""Adds up weights by score: exact up to `capacity` distinct scores, then binned as finely as `capacity` allows.

    A score is stored as the 64-bit pattern of its float64 value, rearranged so that patterns sort like the numbers.
    While more than `capacity` distinct patterns occur, their lowest bit is dropped, for all of them. So a bin's width
    is relative to its scores, only bins that hold something take memory, and neither an offset nor a far tail costs
    resolution where most of the scores are. The number of dropped bits is the smallest that fits the set of all scores
    seen: it depends on that set alone, never on the order, the batches or the merges in which they came.

    Args:
        num_weights (`int`, *optional*, defaults to 1): number of weights that each score carries.
        capacity (`int`, *optional*): highest number of bins; without it every distinct score keeps its own.
    """

    def __init__(self, num_weights: int = 1, capacity: int | None = None):
        self.num_weights = num_weights
        self.capacity = capacity
        self._dropped_bits = 0
        self._bins = np.empty(0, dtype=np.uint64)
        self._weights = np.empty((0, num_weights))
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_pending = 0

    @property
    def dropped_bits(self) -> int:
        """Number of low bits that the bins lack."""
        self._flush()
        return self._dropped_bits

    def count(self, scores: np.ndarray) -> None:
        """Adds 1 at each score.

        Args:
            scores (`np.ndarray` of shape `(num_samples,)`): floating point scores, none of them NaN.
        """
        # Sorted once, in their own precision, the scores become runs of equal bins and need no further sorting.
        bins = self._to_bins(np.sort(scores))
        starts = _run_starts(bins)
        self._append(bins[starts], np.diff(starts, append=len(bins))[:, None].astype(np.float64))

    def add(self, scores: np.ndarray, weights: np.ndarray) -> None:
        """Adds weights at the scores they belong to.

        Args:
            scores (`np.ndarray` of shape `(num_samples,)`): floating point scores, none of them NaN.
            weights (`np.ndarray` of shape `(num_samples, num_weights)`): what each sample adds at its score.
        """
        order = np.argsort(scores)
        self._append(*_sum_runs(self._to_bins(scores[order]), weights[order]))

    def merge(self, other: "ScoreHistogram") -> None:
        """Adds all that another histogram holds; the other stays as it is.

        Args:
            other (`ScoreHistogram`): a histogram with the same number of weights and the same capacity.

        Raises:
            ValueError: if the two differ in number of weights or capacity.
        """
        mine, theirs = ((histogram.num_weights, histogram.capacity) for histogram in (self, other))
        if mine != theirs:
            raise ValueError(f"cannot merge histograms of (number of weights, capacity) {mine} and {theirs}.")
        bins, weights = other.rounded(self.dropped_bits)
        self._drop_bits(other.dropped_bits)
        self._append(bins, weights)

    def rounded(self, num_bits: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Gives what the histogram holds.

        Args:
            num_bits (`int`, *optional*, defaults to 0): bits to drop from the bins, if more than are dropped anyway.

        Returns:
            `tuple(np.ndarray)`: bins `(num_bins,)` in ascending order and the weights `(num_bins, num_weights)` there.
        """
        self._flush()
        return _sum_runs(_round_down(self._bins, num_bits), self._weights)

    def _append(self, bins: np.ndarray, weights: np.ndarray) -> None:
        """Adds weights at bins in strictly ascending order."""
        self._pending.append((bins, weights))
        self._num_pending += len(bins)
        # An insertion copies all bins, so it waits until enough is new.
        if 2 * self._num_pending >= len(self._bins):
            self._flush()

    def _flush(self) -> None:
        if len(self._pending) > 1:
            bins, weights = (np.concatenate(parts) for parts in zip(*self._pending, strict=True))
            order = np.argsort(bins, kind="stable")
            self._pending = [_sum_runs(bins[order], weights[order])]
        for bins, weights in self._pending:
            self._insert(bins, weights)
        self._pending, self._num_pending = [], 0

    def _insert(self, bins: np.ndarray, weights: np.ndarray) -> None:
        if self.capacity is not None and len(bins) > self.capacity:
            self._drop_bits(_bits_to_drop(bins, self.capacity))
            bins, weights = _sum_runs(_round_down(bins, self._dropped_bits), weights)
        places = np.searchsorted(self._bins, bins)
        known = np.zeros(len(bins), dtype=bool)
        inside = places < len(self._bins)
        known[inside] = self._bins[places[inside]] == bins[inside]
        self._weights[places[known]] += weights[known]
        self._bins = np.insert(self._bins, places[~known], bins[~known])
        self._weights = np.insert(self._weights, places[~known], weights[~known], axis=0)
        if self.capacity is not None and len(self._bins) > self.capacity:
            self._drop_bits(_bits_to_drop(self._bins, self.capacity))

    def _drop_bits(self, num_bits: int) -> None:
        if num_bits > self._dropped_bits:
            self._dropped_bits = num_bits
            self._bins, self._weights = _sum_runs(_round_down(self._bins, num_bits), self._weights)

    def _to_bins(self, scores: np.ndarray) -> np.ndarray:
        # Adding 0 turns -0.0 into 0.0, which is equal to it and must share its bin.
        patterns = (scores.astype(np.float64) + 0.0).view(np.int64)
        # The patterns of negative numbers sort backwards, so all of their bits are flipped; of the others the sign is.
        flips = (patterns >> 63) | np.int64(-(2**63))
        return _round_down((patterns ^ flips).view(np.uint64), self._dropped_bits)


def align(first: ScoreHistogram, second: ScoreHistogram) -> tuple[np.ndarray, np.ndarray]:
    """Puts two histograms on the same bins.

    Args:
        first (`ScoreHistogram`): a histogram.
        second (`ScoreHistogram`): another; its number of weights may differ.

    Returns:
        `tuple(np.ndarray)`: the weights `(num_bins, num_weights)` of each, lowest score first.
    """
    num_bits = max(first.dropped_bits, second.dropped_bits)
    parts = (first.rounded(num_bits), second.rounded(num_bits))
    # np.union1d hashes the bins, which takes several times longer than sorting two runs.
    common = np.sort(np.concatenate([parts[0][0], parts[1][0]]))
    common = common[_run_starts(common)]
    aligned = []
    for bins, weights in parts:
        aligned.append(np.zeros((len(common), weights.shape[1])))
        aligned[-1][np.searchsorted(common, bins)] = weights
    return tuple(aligned)


def _bits_to_drop(bins: np.ndarray, capacity: int) -> int:
    """Finds how many of their lowest bits sorted bins must lose to become `capacity` or fewer."""
    # Neighbours become one when every bit in which they differ is dropped. Dropping n bits thus leaves one bin more
    # than there are differences of 2^n and above: the `capacity`-th largest difference must be less than that.
    differences = bins[1:] ^ bins[:-1]
    return int(np.partition(differences, -capacity)[-capacity]).bit_length()


def _round_down(bins: np.ndarray, num_bits: int) -> np.ndarray:
    return bins if num_bits == 0 else (bins >> np.uint64(num_bits)) << np.uint64(num_bits)


def _sum_runs(bins: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums the weights of equal neighbours."""
    starts = _run_starts(bins)
    return (bins, weights) if len(starts) == len(bins) else (bins[starts], np.add.reduceat(weights, starts, axis=0))


def _run_starts(values: np.ndarray) -> np.ndarray:
    """Finds the first of each run of equal neighbours."""
    return np.flatnonzero(np.concatenate([np.ones(min(len(values), 1), dtype=bool), values[1:] != values[:-1]]))
