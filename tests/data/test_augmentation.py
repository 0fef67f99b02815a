"""Picture and mask move together, as Pillow would move them, and always in the same way."""

import numpy as np
import pytest
import torch
from PIL import Image

from moeclip_hf.data import AffineAugmentation
from moeclip_hf.data.augmentation import AffineMotion, apply_motion, sample_motion


def sample(height=40, width=40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(3, height, width, generator=generator)
    return pixel_values, (pixel_values[0] > 0.5).long()


def picture_of_places(height, width) -> torch.Tensor:
    """Every pixel has a value of its own, 1 and up, so that each one can be followed."""
    return torch.arange(1.0, height * width + 1).reshape(1, height, width)


def moved_by_pillow(picture: torch.Tensor, motion: AffineMotion) -> np.ndarray:
    """Rotation, translation and flips as Pillow does them one after the other, the first two in one go."""
    height, width = picture.shape[-2:]
    image = Image.fromarray(picture[0].numpy().astype(np.int32))
    shift = (motion.translation_x * width, motion.translation_y * height)
    image = image.rotate(motion.rotation, resample=Image.Resampling.NEAREST, translate=shift, fillcolor=0)
    if motion.flip_horizontal:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if motion.flip_vertical:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return np.asarray(image)


MOTIONS = [
    AffineMotion(rotation=29.7),
    AffineMotion(rotation=-17.3),
    AffineMotion(translation_x=0.14),
    AffineMotion(translation_y=-0.1),
    AffineMotion(rotation=11, translation_x=-0.07, translation_y=0.15),
    AffineMotion(rotation=-29, translation_x=0.13, flip_horizontal=True),
    AffineMotion(rotation=23, translation_y=0.13, flip_vertical=True),
    AffineMotion(rotation=23, translation_x=0.1, translation_y=-0.13, flip_horizontal=True, flip_vertical=True),
]


@pytest.mark.parametrize("motion", MOTIONS, ids=str)
@pytest.mark.parametrize("size", [(60, 60), (48, 70), (61, 61)])
def test_motion_is_pillows(motion, size):
    picture = picture_of_places(*size)
    moved, expected = apply_motion(motion, picture)[0][0].numpy(), moved_by_pillow(picture, motion)
    # Both take the nearest pixel; they may differ where the place lies on the border of two.
    assert (moved == expected).mean() > 0.99


@pytest.mark.parametrize("size", [(40, 40), (37, 50), (518, 518)])
def test_flips_are_exact(size):
    picture = picture_of_places(*size)
    assert torch.equal(apply_motion(AffineMotion(flip_horizontal=True), picture)[0], picture.flip(-1))
    assert torch.equal(apply_motion(AffineMotion(flip_vertical=True), picture)[0], picture.flip(-2))
    assert torch.equal(apply_motion(AffineMotion(), picture)[0], picture)


def test_translation_by_whole_pixels_is_exact_and_leaves_zeros():
    picture = picture_of_places(20, 40)
    moved = apply_motion(AffineMotion(translation_x=0.1, translation_y=-0.1), picture)[0]
    assert torch.equal(moved[:, :-2, 4:], picture[:, 2:, :-4])
    assert not moved[:, -2:].any()
    assert not moved[:, :, :4].any()


def test_rotation_is_counter_clockwise():
    picture = torch.zeros(1, 41, 41)
    picture[0, 20, 40] = 1  # at the right
    row, column = apply_motion(AffineMotion(rotation=29.7), picture)[0][0].nonzero().float().mean(0).tolist()
    assert row < 15
    assert 34 < column < 40


def test_nearest_sampling_invents_no_values():
    picture = picture_of_places(50, 50)
    moved = apply_motion(AffineMotion(rotation=13, translation_x=0.031), picture)[0]
    assert torch.equal(moved, moved.round())
    assert moved.max() <= 2500


@pytest.mark.parametrize("index", range(20))
def test_mask_follows_the_picture(index):
    pixel_values, _ = sample()
    mask = (pixel_values[0] > 0.5).long()
    moved_pixels, moved_mask = AffineAugmentation(seed=0)(pixel_values, mask, epoch=0, index=index)
    assert torch.equal(moved_mask, (moved_pixels[0] > 0.5).long())
    assert moved_pixels.dtype == torch.float32
    assert moved_mask.dtype == torch.int64
    assert moved_pixels.shape == pixel_values.shape


def test_unknown_mask_stays_unknown():
    pixel_values, mask = sample()
    unknown = torch.full_like(mask, -100)
    moved = [AffineAugmentation(0)(pixel_values, unknown, 0, index)[1] for index in range(20)]
    assert all(torch.equal(one, unknown) for one in moved)


def test_it_is_a_pure_function_of_seed_epoch_and_index():
    pixel_values, mask = sample()
    first = [AffineAugmentation(5)(pixel_values, mask, epoch, index) for epoch in range(2) for index in range(10)]
    torch.rand(3), np.random.rand(3)
    again = [AffineAugmentation(5)(pixel_values, mask, epoch, index) for epoch in range(2) for index in range(10)]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


def test_it_leaves_the_global_generators_and_its_input_alone():
    pixel_values, mask = sample()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    AffineAugmentation(5)(pixel_values, mask, 0, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(pixel_values, sample()[0])


def test_seed_epoch_and_index_each_matter():
    assert len({sample_motion(seed, epoch, index) for seed in (1, 2) for epoch in (3, 4) for index in range(20)}) > 60


@pytest.mark.parametrize(
    ("numbers", "motion"),
    [
        ((111, 3, 1724), AffineMotion(0.0, 0.08896254975694254, 0.11450657990480873, False, True)),
        ((0, 0, 0), AffineMotion(0.0, 0.12382667318331651, 0.03199073273015396, True, True)),
        ((111, 2, 2), AffineMotion(-17.800777150972994, 0.0, 0.0, False, False)),
    ],
)
def test_draws_are_the_same_on_every_machine(numbers, motion):
    assert sample_motion(*numbers) == motion


def test_draws_have_the_recipes_ranges_and_chances():
    motions = [sample_motion(0, 0, index) for index in range(4000)]
    rotations = np.array([motion.rotation for motion in motions if motion.rotation])
    shifts = np.array([(m.translation_x, m.translation_y) for m in motions if m.translation_x])
    chances = [
        len(rotations),
        len(shifts),
        sum(m.flip_horizontal for m in motions),
        sum(m.flip_vertical for m in motions),
    ]
    assert all(abs(number / 4000 - 0.5) < 0.04 for number in chances)  # 5 standard deviations
    assert -30 <= rotations.min() < -29
    assert 29 < rotations.max() <= 30
    assert abs(rotations.mean()) < 2
    assert (np.abs(shifts).max(axis=0) <= 0.15).all()
    assert (np.abs(shifts).max(axis=0) > 0.145).all()
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.1
    assert np.std([len({bool(m.rotation), m.flip_vertical}) for m in motions]) > 0.4  # drawn apart from each other


def test_negative_seed_is_an_error():
    with pytest.raises(ValueError, match="`seed` must not be negative, got -1"):
        AffineAugmentation(-1)
