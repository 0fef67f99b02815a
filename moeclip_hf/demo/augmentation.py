"""The demo's augmentation: turned and flipped pictures in other colours, a function of (seed, epoch, index)."""

import numpy as np
import torch


class DemoAugmentation:
    """Turns and flips picture and mask and changes the picture's colours.

    The paper's rotations and translations leave empty borders. Over so short a training the model would learn from them
    that defects lie in the middle, so pictures are turned by quarters instead.

    With some chance each: the channels change places, the picture loses its colour, light and dark change places, and
    contrast and brightness vary. All act on normalised values, of which 0 is the mean colour.

    Args:
        seed (`int`): The run's seed, not negative.
    """

    def __init__(self, seed: int):
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
        rng = np.random.default_rng((self._seed, epoch, index))
        quarters, is_flipped = int(rng.integers(4)), rng.random() < 0.5
        picture, mask = _recolour(pixel_values, rng), mask_labels
        if is_flipped:
            picture, mask = picture.flip(-1), mask.flip(-1)
        return torch.rot90(picture, quarters, (-2, -1)).contiguous(), torch.rot90(
            mask, quarters, (-2, -1)
        ).contiguous()


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
