"""Bins of scores: how a score is known by its bits, which bins may be merged, and how two classes' bins are aligned."""

from typing import NamedTuple

import numpy as np


_ALL_BITS = np.uint64(2**64 - 1)
# The bins of the highest scores hold no more than this many times their share of the samples that score higher: there,
# a few samples more or less are a large part of those detected.
_TOP_FACTOR = 32


class Bins(NamedTuple):
    """Intervals of patterns in ascending order, each with the summed weights of the samples in it.

    A score is known by its pattern, the 64 bits of its float64 value rearranged so that they sort like the numbers. A
    bin holds all patterns with the same leading bits. So two bins are disjoint, or one lies within the other.

    Attributes:
        starts (`np.ndarray` of shape `(num_bins,)`): uint64, the lowest pattern of each bin.
        widths (`np.ndarray` of shape `(num_bins,)`): uint8, a bin holds 2**width patterns; 0 for a single score.
        weights (`np.ndarray` of shape `(num_weights, num_bins)`): number of samples, and sums of further weights.
    """

    starts: np.ndarray
    widths: np.ndarray
    weights: np.ndarray


def align(normal: Bins, anomalous: Bins) -> np.ndarray:
    """Brings the bins of the two classes into one sequence.

    Bins of the same interval share a place in it. Of a bin that has smaller ones of the other class inside, half comes
    before them and half after, so that each of those beats half of it.

    Args:
        normal ([`Bins`]): the normal samples, with their number as the only weight.
        anomalous ([`Bins`]): the anomalous samples.

    Returns:
        `np.ndarray` of shape `(1 + num_weights, num_places)`: number of the normal samples and weights of the anomalous
        ones at ascending places.
    """
    columns = [
        _find_places(normal, anomalous, slice(0, 1)),
        _find_places(anomalous, normal, slice(1, 1 + len(anomalous.weights))),
    ]
    places, sides, weights = (np.concatenate(parts, axis=-1) for parts in zip(*columns, strict=True))
    order = np.lexsort((sides, places))
    places, sides, weights = places[order], sides[order], weights[:, order]
    first = np.union1d(run_starts(places), run_starts(sides))
    return np.add.reduceat(weights, first, axis=1) if len(first) else weights


def limits(weights: np.ndarray, share: float, places: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Gives the highest weights of a bin of several scores.

    Args:
        weights (`np.ndarray` of shape `(num_weights, num_bins)`): weights of all bins in ascending order.
        share (`float`): highest share of the total of each weight in one bin.
        places (`np.ndarray` of shape `(num_places,)`, *optional*): the bins that are asked for, by default all.

    Returns:
        `np.ndarray` of shape `(num_weights, num_places)`: the limits, smaller where few samples score higher.
    """
    at_or_below = np.cumsum(weights[0])
    higher = at_or_below[-1] - at_or_below[places]
    return np.minimum(_TOP_FACTOR / at_or_below[-1] * (higher + 1), 1) * (share * weights.sum(axis=1, keepdims=True))


def join(parts: list[Bins]) -> Bins:
    """Puts bins together; those of one start become one.

    Args:
        parts (`list[Bins]`): at least one set of bins.

    Returns:
        [`Bins`]: all of them.
    """
    starts, widths, weights = (np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True))
    order = np.argsort(starts, kind="stable")
    starts, widths, weights = starts[order], widths[order], weights[:, order]
    first = run_starts(starts)
    if len(first) < len(starts):
        widths, weights = np.maximum.reduceat(widths, first), np.add.reduceat(weights, first, axis=1)
    return Bins(starts[first], widths, weights)


def merge_down(bins: Bins, share: float, capacity: int) -> Bins:
    """Merges bins until they are clearly fewer than `capacity`.

    Args:
        bins ([`Bins`]): the bins.
        share (`float`): highest share of all samples in a bin of several scores, as far as that leaves few enough.
        capacity (`int`): highest number of bins.

    Returns:
        [`Bins`]: the merged bins.
    """
    while len(bins.starts) > max(capacity * 3 // 4, 1):
        merged = _merge_pairs(bins, share)
        if len(merged.starts) == len(bins.starts):
            share *= 2
        bins = merged
    return bins


def merge_all(bins: Bins, share: float) -> Bins:
    """Merges bins until no two can be merged within the limits.

    Args:
        bins ([`Bins`]): the bins.
        share (`float`): highest share of all samples in a bin of several scores.

    Returns:
        [`Bins`]: the largest intervals within the limits.
    """
    while True:
        merged = _merge_pairs(bins, share)
        if len(merged.starts) == len(bins.starts):
            return merged
        bins = merged


def to_patterns(scores: np.ndarray) -> np.ndarray:
    """Rearranges the bits of scores so that they sort like the scores.

    Args:
        scores (`np.ndarray`): floating point, none of them NaN.

    Returns:
        `np.ndarray` of the same shape, uint64.
    """
    # Adding 0 turns -0.0 into 0.0, which is equal to it and must have its pattern.
    bits = (scores.astype(np.float64) + 0.0).view(np.int64)
    # The bits of negative numbers sort backwards, so all of them are flipped; of the others the sign is.
    return (bits ^ ((bits >> 63) | np.int64(-(2**63)))).view(np.uint64)


def to_scores(patterns: np.ndarray) -> np.ndarray:
    """Undoes [`to_patterns`].

    Args:
        patterns (`np.ndarray`): uint64.

    Returns:
        `np.ndarray` of the same shape, float64; NaN for patterns that are no score's.
    """
    bits = patterns.view(np.int64)
    return (bits ^ (~(bits >> 63) | np.int64(-(2**63)))).view(np.float64)


def first_patterns(patterns: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Finds the lowest pattern of bins.

    Args:
        patterns (`np.ndarray` of shape `(num_bins,)`): uint64, any pattern of each bin.
        widths (`np.ndarray` of shape `(num_bins,)`): uint8, their numbers of free trailing bits.

    Returns:
        `np.ndarray` of shape `(num_bins,)`, uint64.
    """
    return patterns & ~_free_bits(widths)


def last_patterns(bins: Bins) -> np.ndarray:
    """Finds the highest pattern of bins.

    Args:
        bins ([`Bins`]): the bins.

    Returns:
        `np.ndarray` of shape `(num_bins,)`, uint64.
    """
    return bins.starts | _free_bits(bins.widths)


def run_starts(values: np.ndarray) -> np.ndarray:
    """Finds the first of each run of equal neighbours.

    Args:
        values (`np.ndarray` of shape `(num_values,)`): any values.

    Returns:
        `np.ndarray` of shape `(num_runs,)`: indices.
    """
    return np.flatnonzero(np.concatenate([np.ones(min(len(values), 1), dtype=bool), values[1:] != values[:-1]]))


def _find_places(bins: Bins, others: Bins, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives pattern, side (-1 before all bins that begin there, 0 among them, 1 after them) and weights of the bins."""
    last = last_patterns(bins)
    # A bin that was full when further scores came into its interval may have bins of its own class inside.
    last[:-1] = np.minimum(last[:-1], bins.starts[1:] - np.uint64(1))
    low = np.searchsorted(others.starts, bins.starts)
    high = np.searchsorted(others.starts, last, side="right")
    is_around = high - low > 1
    has_one = np.flatnonzero(high - low == 1)
    is_around[has_one] = others.widths[low[has_one]] < bins.widths[has_one]
    weights = np.zeros((1 + max(len(bins.weights), len(others.weights)), len(bins.starts)))
    weights[rows] = bins.weights
    weights[:, is_around] /= 2
    places = np.concatenate([bins.starts, last[is_around]])
    sides = np.concatenate([-1 * is_around, np.ones(is_around.sum(), dtype=int)])
    return places, sides, np.concatenate([weights, weights[:, is_around]], axis=1)


def _merge_pairs(bins: Bins, share: float) -> Bins:
    """Merges each two neighbours that are alone in the smallest interval around them and together within the limits."""
    joints = bins.starts[1:] ^ bins.starts[:-1]
    # Of three neighbours the closer two differ in lower bits: a joint lower than both beside it has no third bin inside.
    is_pair = np.ones(len(joints), dtype=bool)
    is_pair[1:] &= joints[1:] < joints[:-1]
    is_pair[:-1] &= joints[:-1] < joints[1:]
    left = np.flatnonzero(is_pair)
    sums = bins.weights[:, left] + bins.weights[:, left + 1]
    is_small = (sums <= limits(bins.weights, share, left + 1)).all(axis=0)
    left, sums = left[is_small], sums[:, is_small]
    is_kept = np.ones(len(bins.starts), dtype=bool)
    is_kept[left + 1] = False
    starts, widths, weights = bins.starts[is_kept], bins.widths[is_kept], bins.weights[:, is_kept]
    # Each pair before this one has lost a bin.
    merged = left - np.arange(len(left))
    widths[merged] = np.maximum(np.maximum(widths[merged], bins.widths[left + 1]), _num_bits(joints[left]))
    starts[merged] = first_patterns(starts[merged], widths[merged])
    weights[:, merged] = sums
    return Bins(starts, widths, weights)


def _free_bits(widths: np.ndarray) -> np.ndarray:
    # Shifted in two steps, since a shift by all 64 bits at once is not defined.
    return ~((_ALL_BITS << (widths // 2).astype(np.uint64)) << ((widths + 1) // 2).astype(np.uint64))


def _num_bits(patterns: np.ndarray) -> np.ndarray:
    """Gives the place of the highest set bit, counted from 1."""
    # In halves, since a float64 holds no more than 53 bits exactly.
    high, low = patterns >> np.uint64(32), patterns & np.uint64(2**32 - 1)
    return np.where(high > 0, 32 + np.frexp(high.astype(np.float64))[1], np.frexp(low.astype(np.float64))[1])
