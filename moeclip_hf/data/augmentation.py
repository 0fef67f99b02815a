"""The paper's geometric augmentation, the same for a picture and its mask, and the same whenever it is asked for."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


PROBABILITY = 0.5
MAX_ROTATION = 30.0  # degrees
MAX_TRANSLATION = 0.15  # of the picture's width and height


@dataclass(frozen=True)
class AffineMotion:
    """A rotation about the centre, then a translation, then flips.

    Args:
        rotation (`float`): Angle in degrees, counter-clockwise.
        translation_x (`float`): Way to the right, as a share of the width.
        translation_y (`float`): Way down, as a share of the height.
        flip_horizontal (`bool`): Whether left and right are swapped.
        flip_vertical (`bool`): Whether top and bottom are swapped.
    """

    rotation: float = 0.0
    translation_x: float = 0.0
    translation_y: float = 0.0
    flip_horizontal: bool = False
    flip_vertical: bool = False


def sample_motion(seed: int, epoch: int, index: int) -> AffineMotion:
    """Draws a sample's motion: each of rotation, translation and the two flips with probability 0.5.

    Args:
        seed (`int`): The run's seed, not negative.
        epoch (`int`): The epoch, not negative.
        index (`int`): The sample's row in its data set, not negative.

    Returns:
        `AffineMotion`: the same for the same three numbers, on any machine and in any process.
    """
    chance = np.random.default_rng((seed, epoch, index)).random(7)
    is_rotated, is_translated, flip_horizontal, flip_vertical = chance[:4] < PROBABILITY
    angle, right, down = 2 * chance[4:] - 1  # in [-1, 1)
    return AffineMotion(
        rotation=float(angle) * MAX_ROTATION if is_rotated else 0.0,
        translation_x=float(right) * MAX_TRANSLATION if is_translated else 0.0,
        translation_y=float(down) * MAX_TRANSLATION if is_translated else 0.0,
        flip_horizontal=bool(flip_horizontal),
        flip_vertical=bool(flip_vertical),
    )


def apply_motion(motion: AffineMotion, *pictures: torch.Tensor) -> list[torch.Tensor]:
    """Moves pictures of one size alike: nearest pixel, zeros where nothing lies.

    Args:
        motion (`AffineMotion`):
            What to do.
        *pictures (`torch.Tensor` of shape `(channels, height, width)`):
            Floats, or integers that float32 holds exactly.

    Returns:
        `list[torch.Tensor]`: the moved pictures, of the same shapes and types.
    """
    height, width = pictures[0].shape[-2:]
    matrix = _output_to_input(motion, height, width).to(torch.float32)
    grid = F.affine_grid(matrix[None], [1, 1, height, width], align_corners=False)  # (1, height, width, 2)
    moved = (
        F.grid_sample(picture[None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)[0]
        for picture in pictures
    )
    return [result.to(picture.dtype) for result, picture in zip(moved, pictures, strict=True)]


class AffineAugmentation:
    """Moves a normalised picture and its mask as a pure function of (seed, epoch, index).

    So a resumed run, and one with any number of workers, sees the same samples. Where nothing lies, the picture is 0,
    which is the mean colour, and the mask is normal; a mask that is not known (-100 throughout) stays so.

    Args:
        seed (`int`):
            The run's seed.

    Raises:
        ValueError: If `seed` is negative.
    """

    def __init__(self, seed: int):
        if seed < 0:
            raise ValueError(f"`seed` must not be negative, got {seed}.")
        self.seed = int(seed)

    def __call__(
        self, pixel_values: torch.Tensor, mask_labels: torch.Tensor, epoch: int, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Moves one sample.

        Args:
            pixel_values (`torch.Tensor` of shape `(3, height, width)`):
                The normalised picture.
            mask_labels (`torch.Tensor` of shape `(height, width)`):
                0, 1 or -100.
            epoch (`int`):
                The epoch.
            index (`int`):
                The sample's row in its data set.

        Returns:
            `tuple(torch.Tensor)`: the moved `pixel_values` and `mask_labels`, of the same shapes and types.
        """
        motion = sample_motion(self.seed, epoch, index)
        if motion == AffineMotion():
            return pixel_values, mask_labels
        moved_pixels, moved_mask = apply_motion(motion, pixel_values, mask_labels[None])
        return moved_pixels, mask_labels if (mask_labels < 0).all() else moved_mask[0]


def _output_to_input(motion: AffineMotion, height: int, width: int) -> torch.Tensor:
    """The (2, 3) matrix that `affine_grid` wants: from the moved picture's coordinates in [-1, 1] to the picture's.

    Each step is undone in reverse order, on coordinates in pixels with the origin in the centre and y downwards.
    """
    flip = np.diag([-1.0 if motion.flip_horizontal else 1.0, -1.0 if motion.flip_vertical else 1.0])
    translation = np.array([motion.translation_x * width, motion.translation_y * height])
    angle = math.radians(motion.rotation)
    # Clockwise as seen on the screen, because it undoes the rotation.
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    to_pixels = np.diag([width / 2, height / 2])
    linear = np.linalg.inv(to_pixels) @ rotation @ flip @ to_pixels
    offset = np.linalg.inv(to_pixels) @ rotation @ -translation
    return torch.from_numpy(np.column_stack([linear, offset]))
