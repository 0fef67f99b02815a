"""Pictures of every kind come out as the RGB a person sees, and masks stay on their pixels."""

import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor

from moeclip_hf import MoECLIPImageProcessor


CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])
ORIENTATION = 0x0112


def picture(height=13, width=17, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey_picture(**kwargs) -> np.ndarray:
    return picture(**kwargs)[..., 0]


def rgb(processor: MoECLIPImageProcessor, image) -> np.ndarray:
    """What the model sees, as 8-bit values (height, width, 3)."""
    normalised = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    return np.rint((normalised * CLIP_STD + CLIP_MEAN) * 255).astype(int)


@pytest.fixture
def processor() -> MoECLIPImageProcessor:
    return MoECLIPImageProcessor(size=8)


@pytest.fixture
def unresized() -> MoECLIPImageProcessor:
    """Colours alone: no resizing, so that they can be compared exactly."""
    return MoECLIPImageProcessor(do_resize=False)


# --- resizing and normalising -------------------------------------------------------------------------------------


def test_pixel_values_are_bicubic_scaled_and_normalised(processor):
    pixels = picture()
    resized = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = ((resized / 255 - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)
    values = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values[0].numpy(), expected, atol=1e-5)


def test_default_is_518_pixels_square():
    values = MoECLIPImageProcessor()(Image.new("RGB", (20, 10)), return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 3, 518, 518)


def test_batch_of_mixed_sizes_equals_single_pictures(processor):
    images = [Image.fromarray(picture(h, w, seed=h)) for h, w in [(5, 9), (9, 5), (30, 31)]]
    batch = processor(images, return_tensors="pt")["pixel_values"]
    singles = [processor(image, return_tensors="pt")["pixel_values"] for image in images]
    assert torch.equal(batch, torch.cat(singles))


def test_input_is_left_as_it_was(processor):
    pixels = picture()
    mask = grey_picture()
    processor(pixels, masks=mask)
    assert np.array_equal(pixels, picture())
    assert np.array_equal(mask, grey_picture())


# --- every kind of picture ----------------------------------------------------------------------------------------


COLOUR_INPUTS = {
    "RGB": lambda pixels: Image.fromarray(pixels),
    "RGBA, opaque": lambda pixels: Image.fromarray(pixels).convert("RGBA"),
    "palette": lambda pixels: Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE),
    "array, channels last": lambda pixels: pixels,
    "array, channels first": lambda pixels: np.moveaxis(pixels, -1, 0),
    "array with opaque alpha": lambda pixels: np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    "array of 16 bits": lambda pixels: pixels.astype(np.uint16) * 257,
    "array in [0, 1]": lambda pixels: (pixels / 255).astype(np.float32),
    "array of floats": lambda pixels: pixels.astype(np.float32),
    "array of int64": lambda pixels: pixels.astype(np.int64),
    "tensor": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "float tensor": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1) / 255,
    "tensor that needs a gradient": lambda pixels: (torch.from_numpy(pixels) / 255).requires_grad_(),
}


@pytest.mark.parametrize("kind", COLOUR_INPUTS)
def test_colours_come_out_as_they_are(unresized, kind):
    pixels = picture() // 64 * 85  # 4 levels a channel: at most 64 colours, which a palette holds exactly
    pixels[0, :2, :] = [[0], [255]]
    assert np.array_equal(rgb(unresized, COLOUR_INPUTS[kind](pixels)), pixels)


GREY_INPUTS = {
    "L": lambda grey: Image.fromarray(grey),
    "LA, opaque": lambda grey: Image.fromarray(grey).convert("LA"),
    "P": lambda grey: Image.fromarray(grey).convert("P"),
    "I;16": lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
    "I;16B": lambda grey: Image.frombytes("I;16B", grey.shape[::-1], (grey.astype(">u2") * 257).tobytes()),
    "I of 16 bits": lambda grey: Image.fromarray(grey.astype(np.int32) * 257),
    "I of 8 bits": lambda grey: Image.fromarray(grey).convert("I"),
    "F of 16 bits": lambda grey: Image.fromarray(grey.astype(np.float32) * 257),
    "F of 8 bits": lambda grey: Image.fromarray(grey.astype(np.float32)),
    "F in [0, 1]": lambda grey: Image.fromarray(grey.astype(np.float32) / 255),
    "array": lambda grey: grey,
    "array with one channel last": lambda grey: grey[..., None],
    "array with one channel first": lambda grey: grey[None],
    "tensor of 16 bits": lambda grey: torch.from_numpy(grey.astype(np.int32) * 257)[None],
}


@pytest.mark.parametrize("kind", GREY_INPUTS)
def test_grey_of_any_depth_comes_out_on_three_channels(unresized, kind):
    grey = grey_picture()
    grey[0, :2] = 0, 255
    seen = rgb(unresized, GREY_INPUTS[kind](grey))
    assert np.array_equal(seen, np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bit_files_keep_their_values(tmp_path, unresized, name):
    grey = grey_picture()
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        assert np.array_equal(rgb(unresized, path)[..., 1], grey)


def test_one_bit_picture(unresized):
    grey = (grey_picture() > 127).astype(np.uint8) * 255
    assert np.array_equal(rgb(unresized, Image.fromarray(grey).convert("1"))[..., 0], grey)
    assert np.array_equal(rgb(unresized, grey > 0)[..., 0], grey)


def test_cmyk_is_converted_to_the_colours_it_stands_for(unresized):
    red = Image.new("CMYK", (4, 3), (0, 255, 255, 0))
    assert (rgb(unresized, red) == [255, 0, 0]).all()


@pytest.mark.parametrize("as_array", [False, True])
def test_transparency_is_laid_over_white(unresized, as_array):
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[:] = [[255, 0, 0, 255], [255, 0, 0, 51], [9, 9, 9, 0]]
    seen = rgb(unresized, pixels if as_array else Image.fromarray(pixels))
    np.testing.assert_allclose(seen[0], [[255, 0, 0], [255, 204, 204], [255, 255, 255]], atol=1)


def test_transparent_palette_colour_is_white(unresized, tmp_path):
    indices = Image.new("P", (2, 1))
    indices.putpalette([10, 20, 30, 40, 50, 60])
    indices.putdata([0, 1])
    indices.save(tmp_path / "p.png", transparency=1)
    assert rgb(unresized, tmp_path / "p.png")[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_intensity_window_stretches_and_cuts_deep_pictures_only():
    windowed = MoECLIPImageProcessor(do_resize=False, intensity_window=(-100, 155))
    ct_slice = np.array([[-1000, -100, 0, 155, 3000]], dtype=np.int32)
    for deep in (ct_slice, ct_slice.astype(np.float32), Image.fromarray(ct_slice), torch.from_numpy(ct_slice)):
        assert rgb(windowed, deep)[0, :, 0].tolist() == [0, 0, 100, 255, 255]
    shallow = grey_picture()
    assert np.array_equal(rgb(windowed, Image.fromarray(shallow))[..., 0], shallow)


def test_intensity_window_of_one_call():
    deep = np.array([[0, 2048, 4095]], dtype=np.uint16)
    processor = MoECLIPImageProcessor(do_resize=False, do_normalize=False)
    values = processor(deep, intensity_window=(0, 4095), return_tensors="np")["pixel_values"][0, 0, 0]
    np.testing.assert_allclose(values, [0, 128 / 255, 1], atol=1e-6)
    assert processor(deep, return_tensors="np")["pixel_values"].max() < 0.07


def test_nearly_black_deep_picture_is_said_once(unresized, caplog):
    twelve_bits = np.full((4, 4), 4095, dtype=np.uint16)
    with caplog.at_level(logging.WARNING):
        type(logging.getLogger("moeclip_hf.image_processing_moeclip")).warning_once.cache_clear()
        unresized([twelve_bits, twelve_bits])
    assert caplog.text.count("set `intensity_window`") == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((3, 3), -1), "values from -1 to -1, outside 0 to 65535: give `intensity_window`"),
        (np.full((3, 3), 65536), "values from 65536 to 65536, outside 0 to 65535: give `intensity_window`"),
        (np.full((3, 3), np.nan), "holds infinite values or NaN"),
        (np.full((3, 3), np.inf), "holds infinite values or NaN"),
    ],
)
def test_values_without_a_meaning_are_errors(unresized, values, message):
    with pytest.raises(ValueError, match=message):
        unresized(values)


# --- EXIF orientation ---------------------------------------------------------------------------------------------


def save_turned(path, pixels: np.ndarray, orientation: int | None):
    """Saves a picture as a camera does: pixels as stored, and a tag that says how to turn them."""
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, unresized, orientation):
    path = save_turned(tmp_path / "camera.png", picture(), orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(rgb(unresized, path), upright)
    assert np.array_equal(rgb(unresized, Image.open(path)), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(13, 17), (15, 15)])
def test_mask_of_the_stored_pixels_is_turned_with_its_picture(tmp_path, unresized, orientation, shape):
    grey = (grey_picture(height=shape[0], width=shape[1]) > 127).astype(np.uint8) * 255
    image = save_turned(tmp_path / "camera.png", np.dstack([grey] * 3), orientation)
    inputs = unresized(image, masks=Image.fromarray(grey), return_tensors="np")
    # The picture shows the mask itself, so that both must agree wherever they end.
    assert np.array_equal(inputs["mask_labels"][0], rgb(unresized, image)[..., 0] // 255)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_mask_drawn_on_the_upright_picture_stays(tmp_path, unresized, orientation):
    image = save_turned(tmp_path / "camera.png", picture(height=13, width=17), orientation)
    mask = (grey_picture(height=17, width=13) > 127).astype(np.uint8)
    for drawn in (Image.fromarray(mask), mask, torch.from_numpy(mask)):
        assert np.array_equal(unresized(image, masks=drawn, return_tensors="np")["mask_labels"][0], mask)


@pytest.mark.parametrize("image_orientation", [None, 1, 3, 6])
@pytest.mark.parametrize("mask_orientation", [1, 3, 6, 8])
def test_mask_with_a_tag_of_its_own_is_turned_by_that(tmp_path, unresized, image_orientation, mask_orientation):
    image = save_turned(tmp_path / "camera.png", picture(height=15, width=15), image_orientation)
    mask = save_turned(tmp_path / "mask.png", grey_picture(height=15, width=15) // 128, mask_orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(mask)))
    assert np.array_equal(unresized(image, masks=[mask], return_tensors="np")["mask_labels"][0], upright)


# --- masks --------------------------------------------------------------------------------------------------------


def nearest(mask: np.ndarray, size: int) -> np.ndarray:
    """The pixel under the centre of each output pixel."""
    height, width = mask.shape
    resized = np.zeros((size, size), dtype=np.int64)
    for row in range(size):
        for column in range(size):
            resized[row, column] = mask[int((row + 0.5) * height / size), int((column + 0.5) * width / size)] != 0
    return resized


@pytest.mark.parametrize("shape", [(13, 17), (8, 8), (5, 3), (40, 21)])
def test_masks_take_the_nearest_pixel(processor, shape):
    mask = grey_picture(height=shape[0], width=shape[1]) // 200
    labels = processor(picture(*shape), masks=mask, return_tensors="pt")["mask_labels"]
    assert labels.dtype == torch.int64
    assert labels.shape == (1, 8, 8)
    assert np.array_equal(labels[0].numpy(), nearest(mask, 8))


def soft_mask() -> np.ndarray:
    mask = np.zeros((13, 17), dtype=np.uint8)
    mask[2, 3:8] = 1, 3, 7, 128, 255
    return mask


def palette_mask(colours: list[int]):
    """Soft mask's pixels as index 1 of a palette, the others as index 0."""
    mask = Image.fromarray((soft_mask() > 0).astype(np.uint8)).convert("P")
    mask.putpalette(colours)
    return mask


MASK_INPUTS = {
    "L": lambda mask: Image.fromarray(mask),
    "1": lambda mask: Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).convert("1"),
    "I;16": lambda mask: Image.fromarray(mask.astype(np.uint16) * 256),
    "I": lambda mask: Image.fromarray(mask.astype(np.int32)),
    "F": lambda mask: Image.fromarray(mask.astype(np.float32) / 255),
    "RGB": lambda mask: Image.fromarray(np.dstack([mask * 0, mask, mask * 0])),
    "LA": lambda mask: Image.fromarray(mask).convert("LA"),
    "RGBA, painted on a transparent sheet": lambda mask: Image.fromarray(
        np.dstack([np.full_like(mask, 200)] * 3 + [np.where(mask > 0, 255, 0).astype(np.uint8)])
    ),
    "P, black and red": lambda mask: palette_mask([0, 0, 0, 255, 0, 0]),
    "P, index 0 is white": lambda mask: palette_swapped(mask),
    "bool array": lambda mask: mask > 0,
    "float array": lambda mask: mask / 255,
    "array with a channel": lambda mask: mask[None],
    "colour array": lambda mask: np.dstack([mask, mask * 0, mask * 0]),
    "tensor": lambda mask: torch.from_numpy(mask),
    "batch": lambda mask: torch.from_numpy(mask)[None, None],
}


def palette_swapped(mask: np.ndarray) -> Image.Image:
    swapped = Image.fromarray((mask == 0).astype(np.uint8)).convert("P")
    swapped.putpalette([255, 255, 255, 0, 0, 0])
    return swapped


@pytest.mark.parametrize("kind", MASK_INPUTS)
def test_masks_of_every_kind_mark_what_is_not_black(unresized, kind):
    labels = unresized(picture(), masks=MASK_INPUTS[kind](soft_mask()), return_tensors="np")["mask_labels"]
    assert np.array_equal(labels[0], soft_mask() > 0)


def test_unknown_mask_is_minus_100_throughout(processor):
    images = [picture(), picture(seed=1)]
    labels = processor(images, masks=[None, soft_mask()], return_tensors="pt")["mask_labels"]
    assert (labels[0] == -100).all()
    assert set(labels[1].unique().tolist()) <= {0, 1}


def test_without_masks_there_are_no_mask_labels(processor):
    assert set(processor(picture())) == {"pixel_values"}


def test_masks_without_resizing_keep_their_pictures_sizes(unresized):
    inputs = unresized([picture(5, 6), picture(7, 4)], masks=[np.ones((5, 6)), None])
    assert [labels.shape for labels in inputs["mask_labels"]] == [(5, 6), (7, 4)]


@pytest.mark.parametrize("mask", [np.zeros((17, 13)), Image.new("L", (13, 17)), torch.zeros(17, 13)])
@pytest.mark.parametrize("image", [picture(), Image.fromarray(picture())])
def test_mask_of_another_size_names_both(processor, image, mask):
    with pytest.raises(ValueError, match=r"mask of 17 x 13 pixels .* does not fit its image of 13 x 17"):
        processor(image, masks=[mask])


def test_number_of_masks_must_be_that_of_images(processor):
    with pytest.raises(ValueError, match="`masks` has 1 entries for 2 images"):
        processor([picture(), picture()], masks=[soft_mask()])


def test_negative_mask_values_are_errors(processor):
    with pytest.raises(ValueError, match=r"a mask has negative values \(-100\)"):
        processor(picture(), masks=np.full((13, 17), -100))


# --- what cannot be used ------------------------------------------------------------------------------------------


def test_missing_and_damaged_files_are_named(processor, tmp_path):
    with pytest.raises(FileNotFoundError, match="picture '.*nothing.png' does not exist"):
        processor(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"'.*text.png' is not a picture"):
        processor(str(tmp_path / "text.png"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "`images` is empty"),
        ([[picture()]], "flat list"),
        (np.zeros((5, 6, 7), np.uint8), r"shape \(5, 6, 7\) has no axis of 1, 3 or 4 channels"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is not one picture"),
    ],
)
def test_malformed_images_are_errors(processor, images, message):
    with pytest.raises(ValueError, match=message):
        processor(images)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": {"shortest_edge": 224}}, "`size` must be an int or have 'height' and 'width'"),
        ({"do_center_crop": True, "crop_size": 8}, "`do_center_crop` must be False"),
        ({"do_pad": True, "pad_size": 8}, "`do_pad` must be False"),
        ({"do_convert_rgb": False}, "`do_convert_rgb` must be True"),
        ({"intensity_window": (5, 5)}, "`intensity_window` must be two finite values"),
        ({"intensity_window": (0, float("inf"))}, "`intensity_window` must be two finite values"),
    ],
)
def test_bad_arguments_are_errors_at_once(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MoECLIPImageProcessor(**kwargs)
    with pytest.raises(ValueError, match=message):
        MoECLIPImageProcessor()(picture(), **kwargs)


# --- saving -------------------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    processor = MoECLIPImageProcessor(size=42, intensity_window=(0, 4095), image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(tmp_path)
    deep = np.random.default_rng(0).integers(0, 4096, (9, 9), dtype=np.uint16)
    for loaded in (MoECLIPImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MoECLIPImageProcessor
        assert loaded.to_dict() == {**processor.to_dict(), "auto_map": loaded.auto_map}
        assert np.array_equal(loaded(deep)["pixel_values"], processor(deep)["pixel_values"])


def test_pickle_for_workers(processor):
    copy = pickle.loads(pickle.dumps(processor))
    assert np.array_equal(copy(picture())["pixel_values"], processor(picture())["pixel_values"])
