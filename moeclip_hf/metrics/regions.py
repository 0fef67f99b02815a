"""The connected regions of anomaly masks; the only part of the metrics that needs scipy."""

import numpy as np


def region_weights(masks: np.ndarray) -> np.ndarray:
    """Gives each anomalous pixel 1 / (number of pixels of its region), so that every region weighs 1 in total.

    Args:
        masks (`np.ndarray` of shape `(batch_size, height, width)`):
            Bool masks. Pixels that touch at a side or a corner belong to the same region.

    Returns:
        `np.ndarray` of shape `(masks.sum(),)`: weights in the order of `masks.nonzero()`.

    Raises:
        ImportError: if scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("AUPRO needs scipy to find connected regions: pip install scipy.", name="scipy") from error

    within_image = np.zeros((3, 3, 3), dtype=bool)
    within_image[1] = True
    regions = ndimage.label(masks, structure=within_image)[0][masks]
    return 1 / np.bincount(regions)[regions]
