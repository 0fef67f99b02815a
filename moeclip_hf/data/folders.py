"""Folders in MVTec layout.

One class is `<class>/test/<defect>/NNN.png` with `<class>/ground_truth/<defect>/NNN_mask.png`; normal pictures lie in
`<class>/test/good`. A data set is one such folder or a folder of them.
"""

import logging
from pathlib import Path

from .records import AnomalyRecord, default_object_name, resolve_inside


logger = logging.getLogger(__name__)

SPLITS = ("test", "train")
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# MVTec's name and those of data sets in the same layout, whatever their case.
NORMAL_FOLDERS = ("good", "ok", "normal")


def find_class_folders(root: Path, split: str) -> list[Path]:
    """Finds the classes of a data set in MVTec layout.

    Args:
        root (`Path`):
            Folder of one class, which holds a folder named `split`, or folder of many.
        split (`str`):
            `"test"` or `"train"`.

    Returns:
        `list[Path]`: the folders of the classes in the order of their names, none if `root` has another layout.
    """
    if (root / split).is_dir():
        return [root]
    return [folder for folder in _folders(root) if (folder / split).is_dir()]


def read_class_folder(root: Path, folder: Path, split: str) -> list[AnomalyRecord]:
    """Lists the pictures of one class with their masks.

    Masks belong to the test split only. A mask has its picture's name with or without `_mask`, with any suffix of a
    picture.

    Args:
        root (`Path`):
            The data set's root, which no file may leave by a link.
        folder (`Path`):
            The class's folder in it, or `root` itself.
        split (`str`):
            `"test"` or `"train"`.

    Returns:
        `list[AnomalyRecord]`: the pictures, defect by defect in the order of their names.

    Raises:
        ValueError: If pictures lie outside the defects' folders, or several masks fit a picture.
    """
    loose = _pictures(folder / split)
    if loose:
        raise ValueError(
            f"{loose[0]}: a picture outside of the defects' folders: move normal ones to"
            f" {str(folder / split / 'good')!r} and the others to a folder for each defect beside it."
        )
    class_name = folder.resolve().name
    records = []
    for defect_folder in _folders(folder / split):
        is_normal = defect_folder.name.lower() in NORMAL_FOLDERS
        masks = _masks_by_stem(folder / "ground_truth" / defect_folder.name) if split == "test" else {}
        num_used = 0
        for picture in _pictures(defect_folder):
            mask = _find_mask(masks, picture)
            num_used += mask is not None
            records.append(
                AnomalyRecord(
                    image_path=_inside(root, picture),
                    label=0 if is_normal else 1,
                    class_name=class_name,
                    object_name=default_object_name(class_name),
                    mask_path=None if mask is None else _inside(root, mask),
                )
            )
        num_masks = sum(map(len, masks.values()))
        if num_used < num_masks:
            logger.warning(
                "%s: %d of %d masks fit no picture by their names.", defect_folder, num_masks - num_used, num_masks
            )
    return records


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    """The pictures right in a folder; hidden files such as macOS's `._NNN.png` are none."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in PICTURE_SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()
    )


def _masks_by_stem(folder: Path) -> dict[str, list[Path]]:
    masks = {}
    for mask in _pictures(folder) if folder.is_dir() else []:
        masks.setdefault(mask.stem, []).append(mask)
    return masks


def _find_mask(masks: dict[str, list[Path]], picture: Path) -> Path | None:
    fitting = masks.get(f"{picture.stem}_mask") or masks.get(picture.stem) or []
    if len(fitting) > 1:
        raise ValueError(f"{picture}: several masks fit ({fitting[0].name}, {fitting[1].name}): keep one.")
    return fitting[0] if fitting else None


def _inside(root: Path, file: Path) -> Path:
    return resolve_inside(root, file.relative_to(root), str(root))
