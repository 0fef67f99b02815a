"""One picture of a data set on disk, and the root folder that no path may leave."""

from dataclasses import dataclass
from pathlib import Path

from ..prompts_moeclip import GENERIC_OBJECT_NAME


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


def locate_inside(root: Path, path: str | Path, where: str) -> Path:
    """Makes sure that a path, whether there is such a file or not, lies in the data set's root folder.

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
    """
    if Path(path).is_absolute():
        raise ValueError(f"{where}: {str(path)!r} is an absolute path: write it relative to the root folder.")
    file = root / path
    if not file.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{where}: {str(path)!r} leads out of the root folder {str(root)!r}: copy it there.")
    return file


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
    file = locate_inside(root, path, where)
    if not file.is_file():
        raise FileNotFoundError(f"{where}: there is no file {str(path)!r} in the root folder {str(root)!r}.")
    return file
