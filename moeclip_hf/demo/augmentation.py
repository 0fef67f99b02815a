"""The demo's augmentation: the paper's motions, and other colours, so that the model learns defects rather than tints."""

import numpy as np
import torch

from ..data import AffineAugmentation


class DemoAugmentation:
    """Moves picture and mask as the paper does and changes the picture's colours, as a function of its arguments.

    With some chance each: the channels change places, the picture loses its colour, light and dark change places, and
    contrast and brightness vary. All act on normalised values, of which 0 is the mean colour.

    Args:
        seed (`int`): The run's seed, not negative.
    """

    def __init__(self, seed: int):
        self._motion = AffineAugmentation(seed)
        self._seed = seed

    def __call__(
        self, pixel_values: torch.Tensor, mask_labels: torch.Tensor, epoch: int, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Changes one sample.

        Args:
            pixel_values (`torch.Tensor` of shape `(3, height, width)`): The normalised picture.
            mask_labels (`torch.Tensor` of shape `(height, width)`): 0, 1 or -100.
            epoch (`int`): The epoch.
            index (`int`): The sample's row in its data set.

        Returns:
            `tuple(torch.Tensor)`: picture and mask, of the same shapes and types.
        """
        # A stream of its own: the motion's generator starts from the three numbers alone.
        rng = np.random.default_rng((self._seed, epoch, index, 1))
        return self._motion(_recolour(pixel_values, rng), mask_labels, epoch, index)


def _recolour(picture: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    permute, fade, invert, vary = rng.random(4)
    order, contrast, brightness = rng.permutation(3), rng.uniform(0.5, 1.3), rng.uniform(-0.5, 0.5)
    if permute < 0.5:
        picture = picture[torch.from_numpy(order)]
    if fade < 0.3:
        picture = picture.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if invert < 0.3:
        picture = -picture
    if vary < 0.5:
        picture = picture * contrast + brightness
    return picture
