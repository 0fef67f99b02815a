"""Pictures of any kind to CLIP's `pixel_values`, and their masks to `mask_labels` on the same pixels.

It works on Pillow alone (no torchvision), so that the numbers are the same on every machine.
"""

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoImageProcessor
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import (
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    ChannelDimension,
    PILImageResampling,
    infer_channel_dimension_format,
)
from transformers.processing_utils import ImagesKwargs
from transformers.utils import logging

from .configuration_moeclip import IS_INSTALLED_PACKAGE, MoECLIPConfig


logger = logging.get_logger(__name__)

# Label of a pixel about which nothing is known; the losses and the metrics leave it out.
IGNORE_INDEX = -100

EXIF_ORIENTATION = 0x0112

# Turning a picture by its orientation tag 2 to 8 is one of Pillow's transpositions; 5 to 8 swap width and height.
ORIENTATION_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientation(image: Image.Image) -> int | None:
    """Reads the EXIF orientation tag of a picture.

    Args:
        image (`PIL.Image.Image`):
            A picture, decoded or only opened.

    Returns:
        `int` or `None`: 1 to 8, None without a (valid) tag.
    """
    orientation = image.getexif().get(EXIF_ORIENTATION)
    return orientation if orientation in range(1, 9) else None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """The size of a picture once it is turned by its EXIF orientation.

    Args:
        image (`PIL.Image.Image`):
            A picture, decoded or only opened.

    Returns:
        `tuple(int, int)`: height and width in pixels.
    """
    width, height = image.size
    return (width, height) if (read_orientation(image) or 1) >= 5 else (height, width)


def picture_size(image, input_data_format=None) -> tuple[int, int]:
    """The size of a picture of any kind as the model sees it, upright.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            One picture.
        input_data_format (`str` or `ChannelDimension`, *optional*):
            Where an array has its channels; None finds out by their number.

    Returns:
        `tuple(int, int)`: height and width in pixels.
    """
    if isinstance(image, Image.Image):
        return upright_size(image)
    return _channels_last(_to_numpy(image), input_data_format).shape[:2]


def mask_orientation(mask: Image.Image, image: Image.Image) -> int:
    """Finds the EXIF orientation by which a mask has to be turned to lie on its upright picture.

    A mask that carries a tag of its own is turned by that. One without was drawn either on the pixels as the camera
    stored them, then it takes the picture's tag, or on the upright picture; where the size does not tell the two
    apart, it counts as drawn on the stored pixels.

    Args:
        mask (`PIL.Image.Image`):
            The mask, decoded or only opened.
        image (`PIL.Image.Image`):
            Its picture, decoded or only opened, not yet turned.

    Returns:
        `int`: 1 (as it is) to 8.

    Raises:
        ValueError: If the mask's size is neither of the picture's.
    """
    image_orientation = read_orientation(image) or 1
    own_orientation = read_orientation(mask)
    if own_orientation is not None:
        if upright_size(mask) == upright_size(image):
            return own_orientation
    elif mask.size == image.size:
        return image_orientation
    elif mask.size == upright_size(image)[::-1]:
        return 1
    raise ValueError(_size_mismatch(upright_size(mask), upright_size(image)))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turns a picture by an EXIF orientation, whatever its own tag says.

    Args:
        image (`PIL.Image.Image`):
            A picture or a mask.
        orientation (`int`):
            1 (as it is) to 8.

    Returns:
        `PIL.Image.Image`: the upright picture.
    """
    return image.transpose(ORIENTATION_METHODS[orientation]) if orientation > 1 else image


def mask_values(mask: Image.Image) -> np.ndarray:
    """Reads how strongly a mask marks each pixel.

    Colours count, not palette indices, by their strongest channel; a transparent pixel is black, and white is 255 in a
    1-bit mask.

    Args:
        mask (`PIL.Image.Image`):
            A mask of any mode: 1-bit, grey of 8 or 16 bit, palette, colour, with or without transparency.

    Returns:
        `np.ndarray` of shape `(height, width)`: numbers of any type, 0 where the mask is black.
    """
    if mask.mode == "1":
        return np.asarray(mask, dtype=np.uint8) * 255
    if mask.mode in ("L", "I", "F") or mask.mode.startswith("I;16"):
        return np.asarray(mask)
    pixels = np.asarray(mask.convert("RGBA"))
    return np.where(pixels[..., 3] != 0, pixels[..., :3].max(axis=-1), 0)


def mark(values: np.ndarray, mask_threshold: int = 0) -> np.ndarray:
    """Marks the anomalous pixels of a mask: those above a threshold, and with 0 all that are not 0.

    Args:
        values (`np.ndarray`):
            A mask's values, of any shape and type; True counts as 255.
        mask_threshold (`int`, *optional*, defaults to 0):
            The largest value of a normal pixel. Masks that were saved as JPEG need 127: their edges are no longer black
            and white.

    Returns:
        `np.ndarray` of the same shape and type bool.

    Raises:
        ValueError: If the threshold is negative.
    """
    if mask_threshold < 0:
        raise ValueError(f"`mask_threshold` ({mask_threshold}) must be 0 (every pixel that is not black) or more.")
    if mask_threshold == 0 or values.dtype == bool:
        return values != 0
    return values > mask_threshold


class MoECLIPImageProcessorKwargs(ImagesKwargs, total=False):
    r"""Arguments of [`MoECLIPImageProcessor`] beyond those of every image processor.

    intensity_window (`tuple[float, float]`, *optional*):
        The values that become black and white in pictures of more than 8 bits.
    """

    intensity_window: list[float | int] | tuple[float | int, ...] | None


class MoECLIPImageProcessor(PilBackend):
    r"""Turns pictures into CLIP's input and their masks into labels of the same pixels.

    A picture is turned upright by its EXIF orientation, made 8-bit RGB, resized to `size` without keeping its aspect
    (bicubic), scaled to [0, 1] and normalised with CLIP's mean and standard deviation. A mask is turned as its picture
    is (see [`mask_orientation`]), every value other than 0 (or above `mask_threshold`, see [`mark`]) becomes 1, and the
    result is resized with the nearest pixel.

    How a picture becomes 8-bit RGB:

    - Grey, 1-bit, palette, CMYK and other colour models are converted; transparency is laid over white.
    - Unsigned 16-bit values are scaled by their whole range, 0 to 65535, so that the same value always looks the same.
      Cameras and scanners that use 10, 12 or 14 of the 16 bits need `intensity_window`, such as `(0, 4095)`: their
      pictures are nearly black otherwise, and a warning says so.
    - Other integers (Pillow's mode `I`, signed arrays) and floats (mode `F`) carry no range of their own. They are
      read as 8-bit values where none is above 255, as 16-bit values where none is above 65535; floats are read as
      shares of white where none is above 1. Negative or larger values need `intensity_window`, such as
      `(-160, 240)` for soft tissue in a CT slice; infinite ones and NaN are errors.

    Args:
        size (`int` or `dict`, *optional*, defaults to 518):
            Side of the square in pixels that the model sees, or `{"height": ..., "width": ...}`.
        intensity_window (`tuple[float, float]`, *optional*):
            The values that become black and white; values outside are cut. It applies to pictures of more than 8 bits.
        resample (`PIL.Image.Resampling`, *optional*, defaults to bicubic):
            Filter for the pictures; masks always take the nearest pixel.
        image_mean, image_std (`list[float]`, *optional*, default to CLIP's):
            Mean and standard deviation of each channel, of pictures in [0, 1].
        do_resize, do_rescale, do_normalize (`bool`, *optional*, default to True):
            Whether to take the step at all. `do_convert_rgb` is always on; centre crops and padding, which masks
            would not follow, are errors.

    Example:
    ```python
    >>> from PIL import Image
    >>> from moeclip_hf import MoECLIPImageProcessor

    >>> image_processor = MoECLIPImageProcessor(size=518)
    >>> picture, mask = Image.new("RGB", (640, 480)), Image.new("L", (640, 480))
    >>> inputs = image_processor(picture, masks=mask, return_tensors="pt")
    >>> inputs["pixel_values"].shape, inputs["mask_labels"].shape
    (torch.Size([1, 3, 518, 518]), torch.Size([1, 518, 518]))

    ```
    """

    valid_kwargs = MoECLIPImageProcessorKwargs
    model_input_names = ["pixel_values", "mask_labels"]  # noqa: RUF012 - transformers reads a list here

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 518, "width": 518}  # noqa: RUF012 - transformers reads a dict here
    default_to_square = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    intensity_window = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._validate_preprocess_kwargs(**{name: getattr(self, name) for name in self._valid_kwargs_names})

    def preprocess(self, images, masks=None, mask_threshold=0, **kwargs) -> BatchFeature:
        """Prepares pictures and, where given, their masks.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, path, or a sequence of them):
                The pictures. Arrays are (height, width), (height, width, channels) or (channels, height, width) with
                1, 3 or 4 channels; one array of 4 dimensions is a batch.
            masks (the same, *optional*):
                One mask an image, of the image's size; None in a list stands for a mask that is not known.
            mask_threshold (`int`, *optional*, defaults to 0):
                The largest value of a mask's normal pixels; see [`mark`].
            **kwargs:
                Any argument of the class, for this call only, and `return_tensors` (`"pt"` or `"np"`).

        Returns:
            `BatchFeature`: `pixel_values` of shape `(batch_size, 3, height, width)` and type float32 and, with masks,
            `mask_labels` of shape `(batch_size, height, width)` and type int64: 0 normal, 1 anomalous, -100 throughout
            where the mask is not known.

        Raises:
            ValueError: If a picture cannot be read, masks and images differ in number, or a mask differs in size.
        """
        return super().preprocess(images, masks, mask_threshold, **kwargs)

    def fetch_images(self, image_url_or_urls):
        """Opens paths and addresses; pictures and arrays are returned as they are.

        Args:
            image_url_or_urls (`str`, `os.PathLike`, a picture, an array, or a sequence of them):
                What to open. Files are not converted, so that 16-bit values survive.

        Returns:
            The opened picture, or a list of them.
        """
        if _is_sequence(image_url_or_urls):
            image_url_or_urls = list(image_url_or_urls)  # transformers knows lists and tuples alone
        is_path = isinstance(image_url_or_urls, (str, os.PathLike))
        if is_path and not str(image_url_or_urls).startswith(("http://", "https://", "data:")):
            return _open_image(image_url_or_urls)
        try:
            return super().fetch_images(image_url_or_urls)
        except UnidentifiedImageError:
            raise ValueError(_not_a_picture(image_url_or_urls)) from None

    def process_image(self, image, input_data_format=None, intensity_window=None, **kwargs) -> np.ndarray:
        """Turns one picture upright and into 8-bit RGB.

        Args:
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
                One picture.
            input_data_format (`str` or `ChannelDimension`, *optional*):
                Where an array has its channels; None finds out by their number.
            intensity_window (`tuple[float, float]`, *optional*):
                The values that become black and white in pictures of more than 8 bits.
            **kwargs:
                Arguments of the later steps.

        Returns:
            `np.ndarray` of shape `(3, height, width)` and type uint8.

        Raises:
            ValueError: If the picture's values have no defined meaning as colours.
        """
        if isinstance(image, Image.Image):
            pixels = _picture_to_rgb(turn(image, read_orientation(image) or 1), intensity_window)
        else:
            pixels = _array_to_rgb(_to_numpy(image), input_data_format, intensity_window)
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))  # (height, width, 3) -> (3, height, width)

    def _prepare_images_structure(self, images, expected_ndims=3) -> list:
        return _as_list(self.fetch_images(images))

    def _preprocess_image_like_inputs(
        self, images, masks=None, mask_threshold=0, return_tensors=None, **kwargs
    ) -> BatchFeature:
        # Opened here, not in the steps below, because a mask is turned as its picture's EXIF tag says.
        images = self._prepare_images_structure(images)
        features = super()._preprocess_image_like_inputs(images, return_tensors=None, **kwargs)
        if masks is not None:
            masks = self._fetch_masks(masks, len(images))
            features["mask_labels"] = [
                self._prepare_mask(
                    mask, image, pixel_values.shape[-2:], mask_threshold, kwargs.get("input_data_format")
                )
                for mask, image, pixel_values in zip(masks, images, features["pixel_values"], strict=True)
            ]
        return BatchFeature(features.data, tensor_type=return_tensors)

    def _fetch_masks(self, masks, num_images: int) -> list:
        """One mask or None an image."""
        if _is_sequence(masks):
            masks = [None if mask is None else self.fetch_images(mask) for mask in masks]
        else:
            masks = self.fetch_images(masks)
            is_batch = isinstance(masks, (np.ndarray, torch.Tensor)) and masks.ndim > 2 and len(masks) == num_images
            masks = list(masks) if is_batch else [masks]
        if len(masks) != num_images:
            raise ValueError(
                f"`masks` has {len(masks)} entries for {num_images} images: give one an image, None where not known."
            )
        return masks

    def _prepare_mask(self, mask, image, size: tuple[int, int], mask_threshold: int, input_data_format) -> np.ndarray:
        """Brings one mask onto the pixels its picture has after resizing, as 0, 1 or -100."""
        if mask is None:
            return np.full(size, IGNORE_INDEX, dtype=np.int64)
        if isinstance(mask, Image.Image) and isinstance(image, Image.Image):
            values = mask_values(turn(mask, mask_orientation(mask, image)))
        else:
            is_picture = isinstance(mask, Image.Image)
            values = mask_values(turn(mask, read_orientation(mask) or 1)) if is_picture else _values(_to_numpy(mask))
            image_size = picture_size(image, input_data_format)
            if values.shape != image_size:
                raise ValueError(_size_mismatch(values.shape, image_size))
        marked = mark(values, mask_threshold)
        height, width = size
        resized = Image.fromarray(marked.astype(np.uint8)).resize((width, height), PILImageResampling.NEAREST)
        return np.asarray(resized).astype(np.int64)

    def _standardize_kwargs(self, intensity_window=None, **kwargs) -> dict:
        kwargs = super()._standardize_kwargs(**kwargs)
        kwargs["intensity_window"] = None if intensity_window is None else tuple(intensity_window)
        return kwargs

    def _validate_preprocess_kwargs(
        self, size=None, intensity_window=None, do_center_crop=None, do_pad=None, do_convert_rgb=None, **kwargs
    ):
        super()._validate_preprocess_kwargs(size=size, **kwargs)
        if do_center_crop or do_pad:
            name = "do_center_crop" if do_center_crop else "do_pad"
            raise ValueError(f"`{name}` must be False: masks would not follow. Crop or pad pictures and masks before.")
        if do_convert_rgb is False:
            raise ValueError("`do_convert_rgb` must be True: the model reads three channels.")
        if not (size and size.height and size.width):
            raise ValueError(f"`size` must be an int or have 'height' and 'width' in pixels, got {dict(size or {})}.")
        if intensity_window is not None:
            _check_window(intensity_window)


def _size_mismatch(mask_size: tuple[int, int], image_size: tuple[int, int]) -> str:
    return (
        f"a mask of {mask_size[0]} x {mask_size[1]} pixels (height x width) does not fit its image of "
        f"{image_size[0]} x {image_size[1]}: give the mask the image's size."
    )


def _check_window(window) -> None:
    if len(window) != 2 or not all(math.isfinite(value) for value in window) or window[0] >= window[1]:
        raise ValueError(f"`intensity_window` must be two finite values, low < high, got {window}.")


def _open_image(path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"picture {str(path)!r} does not exist.") from None
    except UnidentifiedImageError:
        raise ValueError(_not_a_picture(path)) from None


def _not_a_picture(source) -> str:
    return f"{str(source)[:200]!r} is not a picture that Pillow can read."


def _is_sequence(images) -> bool:
    """Whether there are several pictures in a list or the like, such as a column of a `datasets.Dataset`."""
    return isinstance(images, Sequence) and not isinstance(images, (str, bytes))


def _as_list(images) -> list:
    """A flat list of single pictures, whatever way they were given."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is empty: give at least one.")
        if any(isinstance(image, (list, tuple)) for image in images):
            raise ValueError("`images` must be a flat list, got a list of lists.")
        return list(images)
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        return list(images)
    return [images]


def _to_numpy(array) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def _channels_last(array: np.ndarray, input_data_format) -> np.ndarray:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"an array of shape {array.shape} is not one picture: give 2 or 3 dimensions.")
    if input_data_format is None:
        try:
            input_data_format = infer_channel_dimension_format(array, num_channels=(1, 3, 4))
        except ValueError:
            raise ValueError(
                f"an array of shape {array.shape} has no axis of 1, 3 or 4 channels, first or last."
            ) from None
    return np.moveaxis(array, 0, -1) if ChannelDimension(input_data_format) == ChannelDimension.FIRST else array


def _values(mask: np.ndarray) -> np.ndarray:
    """The values of an array, (height, width), from that shape or with channels first or last."""
    if (mask < 0).any():
        raise ValueError(
            f"a mask has negative values ({mask.min()}): 0 is normal, the rest anomalous, None not known."
        )
    return _channels_last(mask, None).max(axis=-1)


def _picture_to_rgb(image: Image.Image, intensity_window) -> np.ndarray:
    """(height, width, 3) in uint8 of an upright picture of any mode."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _array_to_rgb(np.asarray(image)[..., None], ChannelDimension.LAST, intensity_window)
    return convert_to_rgb(image, return_numpy=True)


def _array_to_rgb(array: np.ndarray, input_data_format, intensity_window) -> np.ndarray:
    """(height, width, 3) in uint8 of an array of any type; a fourth channel is transparency over white."""
    pixels = _to_8_bit(_channels_last(array, input_data_format), intensity_window)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    return convert_to_rgb(pixels, return_numpy=True, input_data_format=ChannelDimension.LAST)


def _to_8_bit(values: np.ndarray, intensity_window) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if not np.isfinite(values).all():
        raise ValueError("a picture holds infinite values or NaN: replace them by finite ones.")
    low, high = _value_range(values) if intensity_window is None else intensity_window
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _value_range(values: np.ndarray) -> tuple[float, float]:
    """Which values are black and white, by the rules in the docstring of [`MoECLIPImageProcessor`]."""
    smallest, largest = values.min(), values.max()
    if values.dtype == np.uint16:
        if largest < 65536 // 4:
            logger.warning_once(
                f"A 16-bit picture uses only values up to {largest} of 65535 and is nearly black: set"
                " `intensity_window` to the camera's range, such as (0, 4095) for 12 bits."
            )
        return 0.0, 65535.0
    is_float = np.issubdtype(values.dtype, np.floating)
    for limit in (1.0, 255.0, 65535.0) if is_float else (255.0, 65535.0):
        if smallest >= 0 and largest <= limit:
            return 0.0, limit
    raise ValueError(
        f"a picture has values from {smallest} to {largest}, outside 0 to 65535: give `intensity_window`,"
        " the values that become black and white."
    )


MoECLIPImageProcessor.register_for_auto_class()
if IS_INSTALLED_PACKAGE:
    AutoImageProcessor.register(MoECLIPConfig, image_processor_classes={"pil": MoECLIPImageProcessor}, exist_ok=True)

__all__ = ["IGNORE_INDEX", "MoECLIPImageProcessor"]
