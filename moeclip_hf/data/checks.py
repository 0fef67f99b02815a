"""Whether the pictures and masks of a data set can be read, before hours of work depend on them."""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..image_processing_moeclip import EXIF_ORIENTATION, mask_orientation, mask_values, read_orientation, turn


# What Pillow raises on files that are damaged, cut short, of no known format or too large to be decoded safely.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class UnreadableSampleError(ValueError):
    """A picture or mask that cannot be used; the message is one line and begins with the file.

    A `DataLoader` raises an error of its workers again, with the worker's whole traceback as the message. Of such a
    message only the last line is kept, so that it reads the same with and without workers.
    """

    def __init__(self, message: str):
        last_line = message.strip().splitlines()[-1]
        super().__init__(last_line.removeprefix(f"{type(self).__module__}.{type(self).__qualname__}: "))


@dataclass(frozen=True)
class SampleReport:
    """What the check of a picture and its mask found out.

    Args:
        problem (`str`): Why they cannot be used, a line that begins with the file; empty if they can.
        has_mask (`bool`): Whether there is a mask.
        is_mask_empty (`bool`): Whether every pixel of it is 0.
        is_mask_jpeg (`bool`): Whether it was saved as JPEG, which softens its edges.
        upright_mask (`bytes`, *optional*):
            The mask turned upright, as PNG, where the picture is turned by an EXIF tag that the mask does not carry.
    """

    problem: str = ""
    has_mask: bool = False
    is_mask_empty: bool = False
    is_mask_jpeg: bool = False
    upright_mask: bytes | None = None


def open_picture(cell: dict) -> Image.Image:
    """Opens a picture of a data set.

    Args:
        cell (`dict`):
            `{"path": ..., "bytes": ...}`, an undecoded cell of a `datasets.Image` column; the bytes count if there are
            any.

    Returns:
        `PIL.Image.Image`: not yet decoded.
    """
    return Image.open(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"]))


def check_samples(
    read_row: Callable[[int], dict], num_rows: int, *, decode: bool, strict: bool
) -> Iterator[SampleReport]:
    """Checks pictures and masks, several at a time.

    Args:
        read_row (`Callable[[int], dict]`):
            Gives a row with undecoded cells `image` and `mask` by its number.
        num_rows (`int`):
            How many there are.
        decode (`bool`):
            Whether to decode the pictures. A picture that was cut short has a sound header, which is all that is read
            otherwise; masks are always decoded.
        strict (`bool`):
            Whether to stop at the first that cannot be used.

    Yields:
        `SampleReport`: one a row, in the order of the rows.

    Raises:
        UnreadableSampleError: If `strict` and a picture or mask cannot be used.
    """

    def check(index: int) -> SampleReport:
        try:
            return check_sample(read_row(index), index, decode=decode)
        except UnreadableSampleError as error:
            if strict:
                raise
            return SampleReport(problem=str(error))

    # Decoding releases Python's lock, so threads share the work.
    with ThreadPoolExecutor() as executor:
        yield from executor.map(check, range(num_rows))


def check_sample(row: dict, index: int, *, decode: bool) -> SampleReport:
    """Reads a picture's header, or all of it, and decodes its mask.

    Args:
        row (`dict`):
            With undecoded cells `image` and `mask`.
        index (`int`):
            Its number, which names a picture without a path.
        decode (`bool`):
            Whether to decode the picture too.

    Returns:
        `SampleReport`: without a problem.

    Raises:
        UnreadableSampleError: If a file is not a picture, or the mask has another size than its picture.
    """
    name = name_picture(row["image"], f"picture {index}")
    with _open_or_explain(row["image"], name) as image:
        if decode:
            _explain(name, image.load)
        if row["mask"] is None:
            return SampleReport()
        mask_name = name_picture(row["mask"], f"the mask of {name}")
        # Pillow may decode a picture to find its tags: what goes wrong there is not the mask's.
        orientation = _explain(name, lambda: read_orientation(image)) or 1
        with _open_or_explain(row["mask"], mask_name) as mask:
            values = _explain(mask_name, lambda: mask_values(turn(mask, mask_orientation(mask, image))))
            is_tag_missing = read_orientation(mask) is None and orientation > 1
    return SampleReport(
        has_mask=True,
        is_mask_empty=not (values != 0).any(),
        is_mask_jpeg=mask.format == "JPEG",
        upright_mask=_encode_upright(values) if is_tag_missing else None,
    )


def name_picture(cell: dict, otherwise: str) -> str:
    """Names a picture in a message.

    Args:
        cell (`dict`): An undecoded cell of a `datasets.Image` column.
        otherwise (`str`): The name of a picture without a path.

    Returns:
        `str`: its path, or `otherwise`.
    """
    return os.fspath(cell["path"]) if cell["path"] else otherwise


def _open_or_explain(cell: dict, name: str) -> Image.Image:
    try:
        return open_picture(cell)
    except UnidentifiedImageError:
        message = f"{name}: not a picture that Pillow can read; replace it or take it out."
        raise UnreadableSampleError(message) from None
    except DECODE_ERRORS as error:
        raise UnreadableSampleError(f"{name}: {error}") from error


def _explain(name: str, decode: Callable):
    try:
        return decode()
    except DECODE_ERRORS as error:
        raise UnreadableSampleError(f"{name}: {error}") from error


def _encode_upright(values: np.ndarray) -> bytes:
    """A mask as PNG whose own tag says that it is upright, so that no reader turns it once more."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 1
    buffer = io.BytesIO()
    # Rounded up, a value is above a whole threshold exactly if it was so before.
    whole = np.clip(np.ceil(values), 0, 65535).astype(np.uint16 if values.max() > 255 else np.uint8)
    Image.fromarray(whole).save(buffer, format="PNG", exif=exif)
    return buffer.getvalue()
