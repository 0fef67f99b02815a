"""The connected regions of a mask: what a box is drawn around. On numpy alone, whole rows at a time."""

import numpy as np


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the connected regions of a mask in the order of their first pixels.

    Each row is cut into runs of marked pixels. Runs of neighbouring rows that touch are joined until every region has
    one number, so the work grows with the number of runs and not with the size of the regions.

    Args:
        mask (`np.ndarray` of shape `(height, width)`):
            Bool mask. Pixels that touch at a side or a corner belong to the same region.

    Returns:
        `tuple(np.ndarray, int)`: numbers of shape `(height, width)` and type int64, 0 outside of the regions and 1 to
        the number of regions inside, and that number.
    """
    rows, starts, ends = _find_runs(mask)
    roots = _join(*_touching_runs(rows, starts, ends), len(rows))
    # Runs stand row by row, and a root is the first run of its region.
    _, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(mask.shape, dtype=np.int64)
    labels[mask] = np.repeat(numbers + 1, ends - starts)
    return labels, int(numbers.max(initial=-1)) + 1


def find_boxes(mask: np.ndarray, anomaly_map: np.ndarray) -> list[dict]:
    """Draws a box around each connected region of a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`):
            Bool mask.
        anomaly_map (`np.ndarray` of shape `(height, width)`):
            The map's values, from which the regions get their scores.

    Returns:
        `list[dict]`: for each region `box`, a tuple of ints `(left, top, right, bottom)` in pixels, the last two just
        outside (as `PIL.Image.crop` takes it), and `score`, a float, the map's largest value in the region. The
        highest score stands first.
    """
    labels, num_regions = label_regions(mask)
    ys, xs = mask.nonzero()
    region = labels[ys, xs] - 1
    boxes = np.empty((num_regions, 4), dtype=np.int64)
    boxes[:, :2], boxes[:, 2:] = max(mask.shape), 0
    scores = np.full(num_regions, -np.inf)
    np.minimum.at(boxes[:, 0], region, xs)
    np.minimum.at(boxes[:, 1], region, ys)
    np.maximum.at(boxes[:, 2], region, xs + 1)
    np.maximum.at(boxes[:, 3], region, ys + 1)
    np.maximum.at(scores, region, anomaly_map[ys, xs])
    order = np.argsort(-scores, kind="stable")
    return [{"box": tuple(boxes[index].tolist()), "score": float(scores[index])} for index in order]


def _find_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and column after the last of each run of marked pixels, row by row."""
    steps = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = (steps == 1).nonzero()
    return rows, starts, (steps == -1).nonzero()[1]


def _touching_runs(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of neighbouring rows that share a side or a corner, the upper one first."""
    # One number line for all rows, on which a run lies below the place that it has in the row above.
    stride = ends.max(initial=0) + 2
    upper_starts, upper_ends = (rows + 1) * stride + starts, (rows + 1) * stride + ends
    first = np.searchsorted(upper_ends, rows * stride + starts)
    last = np.searchsorted(upper_starts, rows * stride + ends, side="right")
    counts = np.maximum(last - first, 0)
    lower = np.repeat(np.arange(len(rows)), counts)
    offsets = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + offsets, lower


def _join(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """The smallest member of each element's group, the pairs `(first[i], second[i])` being in one group."""
    roots = np.arange(count)
    while True:
        low, high = np.minimum(roots[first], roots[second]), np.maximum(roots[first], roots[second])
        if (low == high).all():
            return roots
        np.minimum.at(roots, high, low)
        while (roots != roots[roots]).any():
            roots = roots[roots]


__all__ = ["find_boxes", "label_regions"]
