"""From what the user names, a folder, a list or a benchmark, to the pictures in it."""

import csv
import logging
from dataclasses import replace
from pathlib import Path

from .benchmarks import Benchmark, Layout
from .folders import NORMAL_FOLDERS, Scan, list_folders, list_pictures, scan_folder
from .lists import read_list
from .records import AnomalyRecord, default_object_name, locate_inside


logger = logging.getLogger(__name__)

SPLITS = ("test", "train")
_MASK_FOLDERS = ("ground_truth", "masks")

# Own data in MVTec layout, one class; masks belong to the test split only.
_MVTEC_LAYOUTS = {
    "test": Layout(
        normal="test/{normal}",
        anomalous="test/{defect}",
        masks=("ground_truth/{kind}/{name}_mask", "ground_truth/{kind}/{name}"),
    ),
    "train": Layout(normal="train/{normal}", anomalous="train/{defect}"),
}
# A folder for each kind of picture, one class; masks sorted by kind or all in one folder.
_PLAIN_LAYOUT = Layout(
    normal="{normal}",
    anomalous="{defect}",
    masks=tuple(
        f"{folder}/{name}"
        for folder in _MASK_FOLDERS
        for name in ("{kind}/{name}_mask", "{kind}/{name}", "{name}_mask", "{name}")
    ),
)


def find_own_pictures(data: Path, root: Path | None = None, split: str | None = None, *, strict: bool = True) -> Scan:
    """Finds the pictures of own data.

    Args:
        data (`Path`):
            A list, JSON lines or CSV; a folder with one list in it; a folder in MVTec layout, one class or many; or
            plain folders, `good` and others for the kinds of defects, with or without a folder for each class.
        root (`Path`, *optional*):
            For lists: the folder to which their paths are relative, by default the list's own.
        split (`str`, *optional*):
            For MVTec layout: `"test"` (the default) or `"train"`.
        strict (`bool`, *optional*, defaults to True):
            Whether a file of a list that does not exist is an error.

    Returns:
        `Scan`: the pictures.

    Raises:
        FileNotFoundError: If `data`, `root` or, if `strict`, a file of a list does not exist.
        ValueError: If there is nothing of the kind, a list is malformed, or a path leads out of its root.
    """
    if split not in (None, *SPLITS):
        raise ValueError(f"`split` must be one of {list(SPLITS)}, got {split!r}.")
    if not data.exists():
        raise FileNotFoundError(f"`data` {str(data)!r} does not exist: give a folder of pictures or a list file.")
    if root is not None and not root.is_dir():
        raise FileNotFoundError(
            f"`root` {str(root)!r} is not a folder: give the one to which the list's paths belong."
        )
    if data.is_file():
        return _read_own_list(data, root, split, strict)
    layout, object_names = _find_mvtec_layout(data, split or "test")
    lists = sorted(data.glob("*.jsonl")) or sorted(data.glob("*.csv"))
    if layout is None and len(lists) > 1:
        raise ValueError(f"`data` {str(data)!r} has {len(lists)} lists (*{lists[0].suffix}): name the one to read.")
    if layout is None and lists:
        return _read_own_list(lists[0], root, split, strict)
    if root is not None:
        raise ValueError(f"`root` belongs to lists, but {str(data)!r} is a folder of pictures: leave it out.")
    if layout is None:
        _refuse_other_split(data, split or "test")
        _refuse_split(split)
        layout, object_names = _find_plain_layout(data, split)
    elif lists:
        logger.warning("%s is read as a folder in MVTec layout; %s is not read.", data, lists[0].name)
    return scan_folder(data, layout, object_names)


def _read_own_list(list_file: Path, root: Path | None, split: str | None, strict: bool) -> Scan:
    _refuse_split(split)
    return read_list(list_file, list_file.parent if root is None else root, strict=strict)


def _refuse_other_split(data: Path, split: str) -> None:
    """A folder in MVTec layout that lacks the split must not be read as plain folders of a class called like another."""
    (other,) = set(SPLITS) - {split}
    if _find_mvtec_layout(data, other)[0] is not None:
        raise ValueError(
            f"`data` {str(data)!r} has a folder {other!r} but none {split!r} (MVTec layout): add it, or give `split`"
            f" {other!r}."
        )


def _refuse_split(split: str | None) -> None:
    if split not in (None, "test"):
        raise ValueError(f"`split` {split!r} belongs to folders in MVTec layout: give the {split} pictures a list.")


def _find_mvtec_layout(data: Path, split: str) -> tuple[Layout | None, dict[str, str] | None]:
    """The layout and the classes of a folder in MVTec layout; None and None for another folder."""
    layout = _MVTEC_LAYOUTS[split]
    if (data / split).is_dir():
        return layout, _own_name(data)
    if any((folder / split).is_dir() for folder in list_folders(data)):
        return _with_class_folders(layout), None
    return None, None


def _find_plain_layout(data: Path, split: str | None) -> tuple[Layout, dict[str, str] | None]:
    """The layout and the classes of plain folders: pictures lie in folders of kinds, or one folder deeper."""
    folders = [folder for folder in list_folders(data) if folder.name not in _MASK_FOLDERS]
    kinds = [folder for folder in folders if list_pictures(folder)]
    classes = [
        folder
        for folder in folders
        if any(list_pictures(kind) for kind in list_folders(folder) if kind.name not in _MASK_FOLDERS)
    ]
    if kinds and classes:
        raise ValueError(
            f"`data` {str(data)!r}: pictures lie in {kinds[0].name!r} and also deeper, in folders of"
            f" {classes[0].name!r}: sort them as <kind>/*.png (one class) or as <class>/<kind>/*.png."
        )
    if not kinds and not classes and not list_pictures(data):
        raise ValueError(
            f"`data` {str(data)!r} holds neither <class>/{split or 'test'}/<defect>/ with pictures (MVTec layout), nor"
            " good/ and folders of defects, nor a list (*.jsonl, *.csv)."
        )
    if not any(kind.name.lower() in NORMAL_FOLDERS for folder in classes or [data] for kind in list_folders(folder)):
        logger.warning("%s: no folder is named good, ok or normal: every picture counts as anomalous.", data)
    return (_with_class_folders(_PLAIN_LAYOUT), None) if classes else (_PLAIN_LAYOUT, _own_name(data))


def _with_class_folders(layout: Layout) -> Layout:
    return Layout(
        normal=f"{{class}}/{layout.normal}",
        anomalous=f"{{class}}/{layout.anomalous}",
        masks=tuple(f"{{class}}/{mask}" for mask in layout.masks),
    )


def _own_name(data: Path) -> dict[str, str]:
    """The one class of a folder, which is called like the folder."""
    name = data.resolve().name
    return {name: default_object_name(name)}


def find_benchmark_pictures(
    benchmark: Benchmark, root: Path, list_file: Path | None = None, *, strict: bool = True
) -> Scan:
    """Finds the test pictures of a benchmark.

    Args:
        benchmark (`Benchmark`):
            Which one.
        root (`Path`):
            Its folder.
        list_file (`Path`, *optional*):
            A list of its pictures with paths relative to `root`. Without it the folders are scanned; where they do not
            have the benchmark's layout, a single `*.jsonl` in `root` is read instead.
        strict (`bool`, *optional*, defaults to True):
            Whether a file of such a list, or of the benchmark's own list of test pictures, that does not exist is an
            error.

    Returns:
        `Scan`: the pictures, with the names of the table.

    Raises:
        FileNotFoundError: If `root`, the list, the benchmark's list of test pictures or, if `strict`, a file of the
            list does not exist.
        ValueError: If there is no picture of it, a list is malformed, or a path leads out of `root`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"`root` {str(root)!r} is not a folder: give the one where {benchmark.title} lies.")
    if list_file is not None:
        return _read_benchmark_list(benchmark, list_file, root, strict)
    scan = scan_folder(root, benchmark.layout, benchmark.object_names)
    lists = sorted(root.glob("*.jsonl"))
    if scan.records:
        for one in lists:
            logger.warning("%s is read by its folders; the list %s is not read.", root, one.name)
        return _keep_test_split(scan, benchmark.layout, root, strict)
    if len(lists) == 1:
        return _read_benchmark_list(benchmark, lists[0], root, strict)
    raise ValueError(_nothing_found(benchmark, root, lists))


def _read_benchmark_list(benchmark: Benchmark, list_file: Path, root: Path, strict: bool) -> Scan:
    scan = read_list(list_file, root, strict=strict)
    return replace(scan, records=[_name_by_table(benchmark, record, list_file, root) for record in scan.records])


def _name_by_table(benchmark: Benchmark, record: AnomalyRecord, list_file: Path, root: Path) -> AnomalyRecord:
    """Gives a picture of a list the class and the object name that the table has for it.

    Lists may name a class otherwise (Woven for Woven_001): then the picture's first folder tells.
    """
    names = benchmark.object_names
    folder = record.image_path.relative_to(root).parts[0]
    candidates = list(names) if len(names) == 1 else [record.class_name, folder]
    class_name = next((name for name in candidates if name in names), None)
    if class_name is None:
        raise ValueError(
            f"{list_file}: {record.class_name!r} is no class of {benchmark.title} ({', '.join(names)}), "
            f"and nor is the folder of {record.image_path}."
        )
    return replace(record, class_name=class_name, object_name=names[class_name])


def _keep_test_split(scan: Scan, layout: Layout, root: Path, strict: bool) -> Scan:
    if layout.split_list is None:
        return scan
    file = root / layout.split_list
    if not file.is_file():
        raise FileNotFoundError(
            f"`root` {str(root)!r} has no {layout.split_list}, which names the test pictures: take it from the archive."
        )
    listed = _read_split_list(file, root)
    kept = [record for record in scan.records if record.image_path in listed]
    there = {record.image_path for record in kept}
    missing = [
        f"{file}, line {line}: there is no file {str(path)!r}." for path, line in listed.items() if path not in there
    ]
    if strict and missing:
        raise FileNotFoundError(missing[0])
    return Scan(kept, scan.unused_masks, missing)


def _read_split_list(file: Path, root: Path) -> dict[Path, int]:
    """The pictures of the split "test" in a CSV file with columns `image` and `split`, with their lines."""
    listed: dict[Path, int] = {}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        absent = {"image", "split"} - set(reader.fieldnames or [])
        if absent:
            raise ValueError(f"{file}: columns {sorted(absent)} are missing: take the file from the archive.")
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if row["split"] == "test":
                path = locate_inside(root, row["image"] or "", where)
                if path in listed:
                    raise ValueError(f"{where}: {row['image']!r} stands in line {listed[path]} already: keep one.")
                listed[path] = reader.line_num
    return listed


def _nothing_found(benchmark: Benchmark, root: Path, lists: list[Path]) -> str:
    """Says what was looked for and where, and where it may be."""
    wanted = [pattern for pattern in (benchmark.layout.normal, benchmark.layout.anomalous) if pattern]
    example = next(iter(benchmark.object_names))
    examples = {"{class}": example, "{normal}": "good", "{defect}": "<defect>"}
    parts = [[examples.get(part, part) for part in pattern.split("/")] for pattern in wanted]
    patterns = " or ".join(map("/".join, parts))
    message = f"`root` {str(root)!r} has no pictures of {benchmark.title}: looked for {patterns} in it"
    for folder in list_folders(root):
        if scan_folder(folder, benchmark.layout, benchmark.object_names).records:
            return f"{message}; {str(folder)!r} has them: give that one."
    if lists:
        return f"{message}, and it has {len(lists)} lists (*.jsonl): name one of them."
    return f"{message}."
