"""Counts the bulk of the scores without sorting them."""

import numpy as np

from .bins import Bins, first_patterns, limits, to_patterns, to_scores


# The cells cover the scores between these shares of the samples; the tails would only make the cells wider.
_CORE = np.array([0.05, 0.95])


class ScoreGrid:
    r"""Cells of equal width 2^k over the bulk of the scores, which are bins, too, but need no sorted samples.

    A cell takes samples as long as they are few enough for a bin that is kept. The others are handed back: those of
    full cells, of the tails, and of the cells next to zero, which hold numbers of every size.

    Args:
        bins ([`Bins`]): the bins of the samples so far, which say where further ones are to be expected.
        share (`float`): highest share of these samples in a bin that is kept.
        num_cells (`int`): number of cells, at least 5.
    """

    def __init__(self, bins: Bins, share: float, num_cells: int):
        self._num_cells = num_cells
        # The first pattern of a large bin may be below that of any score.
        ranks, scores = np.cumsum(bins.weights[0]), to_scores(np.maximum(bins.starts, to_patterns(np.array(-np.inf))))
        core = scores[np.searchsorted(ranks, ranks[-1] * _CORE)]
        lowest, highest = np.clip(core, -(2.0**1000), 2.0**1000)
        # No cell is smaller than the last bit of a score in it, and none so small that float64 has fewer bits there.
        sizes = [(highest - lowest) / (self._num_cells - 4), np.abs([lowest, highest]).max() * 2.0**-52, 2.0**-960]
        self._exponent = int(np.frexp(sizes)[1].max())
        self._first = int(np.floor(lowest * 2.0**-self._exponent)) - 1
        self._counts = np.zeros(self._num_cells, np.int64)
        cells = self._find_cells(scores)
        last_bins = np.searchsorted(cells, np.arange(self._num_cells), side="right") - 1
        self._room = 2 * limits(bins.weights, share, np.maximum(last_bins, 0))[0]
        is_closed = np.bincount(cells, bins.weights[0], minlength=self._num_cells) > self._room
        is_closed |= np.isin(np.arange(self._num_cells) + self._first, (-1, 0))
        # Beyond the outer cells lie the tails.
        is_closed[[0, -1]] = True
        self._room[is_closed] = 0

    def count(self, scores: np.ndarray) -> np.ndarray:
        """Counts the scores for which there is room.

        Args:
            scores (`np.ndarray` of shape `(num_samples,)`): floating point, none of them NaN.

        Returns:
            `np.ndarray` of shape `(num_left,)`: the scores that are not counted.
        """
        cells = self._find_cells(scores)
        counts = self._counts + np.bincount(cells, minlength=self._num_cells)
        is_full = counts > self._room
        self._room[is_full] = self._counts[is_full]
        self._counts = np.where(is_full, self._counts, counts)
        return scores[is_full[cells]]

    def to_bins(self) -> Bins:
        """Gives the cells that hold samples.

        Returns:
            [`Bins`]: the cells as bins.
        """
        occupied = np.flatnonzero(self._counts)
        cells = occupied + self._first
        # The edge nearer to zero; a cell is away from it.
        edges = np.where(cells < 0, cells + 1, cells).astype(np.float64)
        widths = (53 - np.frexp(edges)[1]).astype(np.uint8)
        starts = first_patterns(to_patterns(np.ldexp(edges, self._exponent)), widths)
        return Bins(starts, widths, self._counts[None, occupied].astype(np.float64))

    def _find_cells(self, scores: np.ndarray) -> np.ndarray:
        # Scaling by a power of 2 is exact.
        scaled = scores.astype(np.float64) * 2.0**-self._exponent
        np.clip(scaled, self._first, self._first + self._num_cells - 0.5, out=scaled)
        cells = scaled.astype(np.int64)
        # Truncation goes towards zero from both sides.
        cells -= scaled < 0
        cells -= self._first
        return np.clip(cells, 0, self._num_cells - 1, out=cells)
