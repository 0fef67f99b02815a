"""Connected regions the slow way."""

import numpy as np


def flood_fill(mask):
    """Numbers the regions by walking from pixel to pixel, all eight neighbours counting."""
    labels = np.zeros(mask.shape, dtype=np.int64)
    count = 0
    for y, x in zip(*mask.nonzero(), strict=True):
        if labels[y, x]:
            continue
        count += 1
        pending = [(y, x)]
        labels[y, x] = count
        while pending:
            row, column = pending.pop()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near = (row + dy, column + dx)
                    inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                    if inside and mask[near] and not labels[near]:
                        labels[near] = count
                        pending.append(near)
    return labels, count
