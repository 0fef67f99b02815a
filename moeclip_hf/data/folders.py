"""The scanner: pictures and masks below a root folder, in whatever layout."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .benchmarks import Layout
from .records import AnomalyRecord, default_object_name, resolve_inside


PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# MVTec's name and those of data sets in the same layout, whatever their case.
NORMAL_FOLDERS = ("good", "ok", "normal")
# What the parts of a layout's patterns tell about a picture.
FIELDS = {"{class}": "class", "{normal}": "kind", "{defect}": "kind", "{kind}": "kind"}


@dataclass(frozen=True)
class Scan:
    """The pictures of a data set, and what does not fit.

    Args:
        records (`list[AnomalyRecord]`): The pictures in the order of their paths, or of the list they are from.
        unused_masks (`list[Path]`): Masks that fit no picture by their names.
        missing (`list[str]`): Files that a list of the data set names and that are not there, a line each.
    """

    records: list[AnomalyRecord]
    unused_masks: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def scan_folder(root: Path, layout: Layout, object_names: dict[str, str] | None = None) -> Scan:
    """Finds the pictures of a layout with their masks.

    A mask has any suffix of a picture. Normal pictures have one only where the layout sorts masks by kind, since masks
    of all defects in one folder may have the names of normal pictures.

    Args:
        root (`Path`):
            The data set's root, which no file may leave by a link.
        layout (`Layout`):
            Where the pictures and masks lie.
        object_names (`dict[str, str]`, *optional*):
            The classes to look for, and the objects' names; exactly one class if the layout has no folders of classes.
            None takes every folder as a class that is called by its name.

    Returns:
        `Scan`: the pictures in the order of their paths, and the masks that fit none.

    Raises:
        ValueError: If pictures lie outside the folders of their kinds, a link leads out of the root, several masks fit
            a picture, or a mask fits several.
    """
    masks = _index_masks(root, layout, object_names)
    records, picture_of_mask = [], {}
    for label, pattern in ((0, layout.normal), (1, layout.anomalous)):
        usable = [mask for mask in layout.masks if label or "{kind}" in mask]
        for folder, fields in _find_folders(root, pattern, object_names, _names_of_mask_folders(layout, pattern)):
            class_name = fields.get("class") or next(iter(object_names))
            for picture in list_pictures(folder):
                mask = _find_mask(masks, [root / one.format(name=picture.stem, **fields) for one in usable], picture)
                if mask in picture_of_mask:
                    raise ValueError(f"{mask}: fits {picture_of_mask[mask]} and {picture}: rename one and its mask.")
                if mask is not None:
                    picture_of_mask[mask] = picture
                records.append(
                    AnomalyRecord(
                        image_path=_inside(root, picture),
                        label=label,
                        class_name=class_name,
                        object_name=(object_names or {}).get(class_name) or default_object_name(class_name),
                        mask_path=None if mask is None else _inside(root, mask),
                    )
                )
    unused = [mask for found in masks.values() for mask in found if mask not in picture_of_mask]
    return Scan(sorted(records, key=lambda record: record.image_path), sorted(unused))


def list_folders(folder: Path) -> list[Path]:
    """Lists the folders in a folder by their names, without hidden ones.

    Args:
        folder (`Path`): Where to look.

    Returns:
        `list[Path]`: the folders.
    """
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def list_pictures(folder: Path) -> list[Path]:
    """Lists the pictures right in a folder by their names; hidden files such as macOS's `._NNN.png` are none.

    Args:
        folder (`Path`): Where to look.

    Returns:
        `list[Path]`: the files with a picture's suffix.
    """
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in PICTURE_SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()
    )


def _find_folders(
    root: Path, pattern: str | None, object_names: dict[str, str] | None, reserved: set[str] = frozenset()
) -> list[tuple[Path, dict]]:
    """The folders that a pattern stands for, each with what stood for `{class}` and for the kind.

    Folders with `reserved` names do not count as kinds.
    """
    return [] if pattern is None else list(_walk(root, pattern.split("/"), {}, object_names, reserved))


def _walk(
    folder: Path, parts: list[str], fields: dict, object_names, reserved: set[str]
) -> Iterator[tuple[Path, dict]]:
    if not parts:
        yield folder, fields
        return
    part, *rest = parts
    key = FIELDS.get(part)
    if key is None:
        candidates = [folder / part]
    elif key == "class":
        candidates = list_folders(folder) if object_names is None else [folder / name for name in object_names]
    else:
        candidates = [kind for kind in list_folders(folder) if kind.name not in reserved]
    if part in ("{normal}", "{defect}"):
        _refuse_loose_pictures(folder)
        candidates = [kind for kind in candidates if is_normal_folder(kind) == (part == "{normal}")]
    for candidate in candidates:
        if candidate.is_dir():
            found = fields | {key: candidate.name} if key else fields
            yield from _walk(candidate, rest, found, object_names, reserved)


def _names_of_mask_folders(layout: Layout, pattern: str | None) -> set[str]:
    """The names of the folders for masks that stand beside those of the kinds."""
    parts = pattern.split("/") if pattern else []
    depth = next((place for place, part in enumerate(parts) if FIELDS.get(part) == "kind"), None)
    if depth is None:
        return set()
    masks = [mask.split("/") for mask in layout.masks]
    return {mask[depth] for mask in masks if mask[:depth] == parts[:depth]}


def is_normal_folder(folder: Path) -> bool:
    """Tells whether a folder holds the normal pictures.

    Args:
        folder (`Path`): A folder.

    Returns:
        `bool`: whether it is named good, ok or normal, in any case.
    """
    return folder.name.lower() in NORMAL_FOLDERS


def _refuse_loose_pictures(folder: Path) -> None:
    loose = list_pictures(folder)
    if loose:
        raise ValueError(
            f"{loose[0]}: a picture outside of the defects' folders: move normal ones to"
            f" {str(folder / 'good')!r} and the others to a folder for each defect beside it."
        )


def _index_masks(root: Path, layout: Layout, object_names) -> dict[Path, list[Path]]:
    """The masks of a layout by their paths without suffix."""
    folders = {}
    for pattern in layout.masks:
        for folder, _ in _find_folders(root, pattern.rpartition("/")[0], object_names):
            folders.setdefault(folder, list_pictures(folder))
    masks: dict[Path, list[Path]] = {}
    for files in folders.values():
        for mask in files:
            masks.setdefault(mask.with_suffix(""), []).append(mask)
    return masks


def _find_mask(masks: dict[Path, list[Path]], places: list[Path], picture: Path) -> Path | None:
    for place in places:
        fitting = masks.get(place, [])
        if len(fitting) > 1:
            raise ValueError(f"{picture}: several masks fit ({fitting[0].name}, {fitting[1].name}): keep one.")
        if fitting:
            return fitting[0]
    return None


def _inside(root: Path, file: Path) -> Path:
    return resolve_inside(root, file.relative_to(root), str(root))
