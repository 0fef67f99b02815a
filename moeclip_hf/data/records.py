"""One picture of a data set on disk, and the checks that it can be read."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..image_processing_moeclip import EXIF_ORIENTATION, mask_orientation, mask_to_array, read_orientation, turn
from ..prompts_moeclip import GENERIC_OBJECT_NAME


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
class AnomalyRecord:
    """One picture of a data set.

    Args:
        image_path (`Path`): The picture.
        label (`int`): 0 normal, 1 anomalous.
        class_name (`str`): The class under which results are reported.
        object_name (`str`): The object's name in the prompts.
        mask_path (`Path`, *optional*): Its mask.
    """

    image_path: Path
    label: int
    class_name: str
    object_name: str
    mask_path: Path | None = None


def default_object_name(class_name: str) -> str:
    """The name of a class as it stands in a prompt: spaces for underscores, `"object"` where there is none.

    Args:
        class_name (`str`):
            The class's name, such as `"metal_nut"`.

    Returns:
        `str`: the object's name, such as `"metal nut"`.
    """
    return " ".join(class_name.replace("_", " ").split()) or GENERIC_OBJECT_NAME


def resolve_inside(root: Path, path: str | Path, where: str) -> Path:
    """Finds a file of a data set and makes sure that it lies in the data set's root folder.

    Args:
        root (`Path`):
            The folder that no path may leave, neither by `..` nor by a link.
        path (`str` or `Path`):
            The file, relative to `root`.
        where (`str`):
            Where the path was found; errors begin with it.

    Returns:
        `Path`: the file below `root` as it was named, links not followed.

    Raises:
        ValueError: If the path is absolute or leads out of `root`.
        FileNotFoundError: If there is no such file.
    """
    if Path(path).is_absolute():
        raise ValueError(f"{where}: {str(path)!r} is an absolute path: write it relative to the root folder.")
    file = root / path
    if not file.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{where}: {str(path)!r} leads out of the root folder {str(root)!r}: copy it there.")
    if not file.is_file():
        raise FileNotFoundError(f"{where}: there is no file {str(path)!r} in the root folder {str(root)!r}.")
    return file


@dataclass(frozen=True)
class MaskReport:
    """What the check of a record found out about its mask.

    Args:
        is_empty (`bool`): Whether every pixel is 0.
        upright_png (`bytes`, *optional*):
            The mask turned upright, where the picture is turned by an EXIF tag that the mask does not carry.
    """

    is_empty: bool
    upright_png: bytes | None = None


def check_record(record: AnomalyRecord) -> MaskReport | None:
    """Reads the picture's header and decodes its mask.

    Args:
        record (`AnomalyRecord`):
            One picture of a data set.

    Returns:
        `MaskReport` or None: None without a mask.

    Raises:
        UnreadableSampleError: If a file is not a picture, or the mask has another size than its picture.
    """
    with _open(record.image_path) as image:
        if record.mask_path is None:
            return None
        with _open(record.mask_path) as mask:
            try:
                marked = mask_to_array(turn(mask, mask_orientation(mask, image)))
            except DECODE_ERRORS as error:
                raise UnreadableSampleError(f"{record.mask_path}: {error}") from error
            is_tag_missing = read_orientation(mask) is None and (read_orientation(image) or 1) > 1
    return MaskReport(is_empty=not marked.any(), upright_png=_encode_upright(marked) if is_tag_missing else None)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise UnreadableSampleError(
            f"{path}: not a picture that Pillow can read; replace it or take it out."
        ) from None
    except DECODE_ERRORS as error:
        raise UnreadableSampleError(f"{path}: {error}") from error


def _encode_upright(marked: np.ndarray) -> bytes:
    """A mask as PNG whose own tag says that it is upright, so that no reader turns it once more."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 1
    buffer = io.BytesIO()
    Image.fromarray(marked.astype(np.uint8) * 255).save(buffer, format="PNG", exif=exif)
    return buffer.getvalue()
