"""A folder in MVTec layout or a list of pictures as a `datasets.Dataset`."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .folders import SPLITS, find_class_folders, read_class_folder
from .lists import read_list
from .records import AnomalyRecord, MaskReport, check_record


try:
    import datasets
except ImportError as error:
    raise ImportError("reading data sets needs the package `datasets`: pip install 'moeclip_hf[train]'.") from error


logger = logging.getLogger(__name__)

LABEL_NAMES = ("normal", "anomalous")


def load_anomaly_dataset(
    data: str | os.PathLike, *, root: str | os.PathLike | None = None, split: str = "test"
) -> datasets.Dataset:
    """Reads a data set of normal and anomalous pictures from disk.

    Every picture's header is read and every mask is decoded at once, so that damaged files and masks of another size
    are found before hours of work. Pictures without a mask although they are anomalous, and empty masks of anomalous
    pictures, are counted and said in the log; both are kept as they are.

    Args:
        data (`str` or `os.PathLike`):
            A folder in MVTec layout (one class or many), a JSON-lines list, or a folder with exactly one `*.jsonl`.
        root (`str` or `os.PathLike`, *optional*):
            For lists: the folder to which their paths are relative, by default the list's own. No path, and no link on
            it, may leave the root folder.
        split (`str`, *optional*, defaults to `"test"`):
            For folders in MVTec layout: `"test"`, as the paper trains and evaluates, or `"train"`.

    Returns:
        `datasets.Dataset`: with columns `image` (`datasets.Image`), `mask` (`datasets.Image`, None where there is
        none), `label` (0 normal, 1 anomalous), `class_name` and `object_name`, the class's name with spaces for
        underscores unless the list gives another, `"object"` for a class without a name.

    Raises:
        FileNotFoundError: If `data`, `root` or a file of a list does not exist.
        ValueError: If there is no picture to read, a list is malformed, a path leaves its root, a file is not a
            picture, or a mask has another size than its picture.
    """
    records = _find_records(Path(data), None if root is None else Path(root), split)
    if not records:
        raise ValueError(f"`data` {str(data)!r} has no pictures.")
    # Decoding releases Python's lock, so threads share the work.
    with ThreadPoolExecutor() as executor:
        reports = list(executor.map(check_record, records))
    _log_counts(data, records, reports)
    columns = {
        "image": [str(record.image_path.absolute()) for record in records],
        "mask": [_mask_cell(record, report) for record, report in zip(records, reports, strict=True)],
        "label": [record.label for record in records],
        "class_name": [record.class_name for record in records],
        "object_name": [record.object_name for record in records],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "label": datasets.ClassLabel(names=list(LABEL_NAMES)),
            "class_name": datasets.Value("string"),
            "object_name": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def _find_records(data: Path, root: Path | None, split: str) -> list[AnomalyRecord]:
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {list(SPLITS)}, got {split!r}.")
    if not data.exists():
        raise FileNotFoundError(f"`data` {str(data)!r} does not exist: give a folder in MVTec layout or a list file.")
    if root is not None and not root.is_dir():
        raise FileNotFoundError(
            f"`root` {str(root)!r} is not a folder: give the one to which the list's paths belong."
        )
    if data.is_file():
        return _read_whole_list(data, root, split)
    class_folders = find_class_folders(data, split)
    lists = sorted(data.glob("*.jsonl"))
    if class_folders:
        if root is not None:
            raise ValueError(f"`root` belongs to lists, but {str(data)!r} is a folder in MVTec layout: leave it out.")
        if lists:
            logger.warning("%s is read as a folder in MVTec layout; %s is not read.", data, lists[0].name)
        return [record for folder in class_folders for record in read_class_folder(data, folder, split)]
    if len(lists) == 1:
        return _read_whole_list(lists[0], root, split)
    if len(lists) > 1:
        raise ValueError(f"`data` {str(data)!r} has {len(lists)} lists (*.jsonl): name the one to read.")
    raise ValueError(
        f"`data` {str(data)!r} holds neither <class>/{split}/<defect>/ with pictures (MVTec layout) nor a list (*.jsonl)."
    )


def _read_whole_list(list_file: Path, root: Path | None, split: str) -> list[AnomalyRecord]:
    if split != "test":
        raise ValueError(f"`split` {split!r} belongs to folders in MVTec layout: give the {split} pictures a list.")
    return read_list(list_file, list_file.parent if root is None else root)


def _mask_cell(record: AnomalyRecord, report: MaskReport | None) -> str | dict | None:
    if report is None:
        return None
    if report.upright_png is None:
        return str(record.mask_path.absolute())
    return {"path": None, "bytes": report.upright_png}  # `datasets` drops the bytes where a path is given


def _log_counts(data, records: list[AnomalyRecord], reports: list[MaskReport | None]) -> None:
    num_anomalous = sum(record.label for record in records)
    num_classes = len({record.class_name for record in records})
    logger.info(
        "%s: %d pictures of %d classes, %d normal and %d anomalous.",
        data, len(records), num_classes, len(records) - num_anomalous, num_anomalous,
    )  # fmt: skip
    pairs = list(zip(records, reports, strict=True))
    without = [record for record, report in pairs if record.label and report is None]
    empty = [record for record, report in pairs if record.label and report is not None and report.is_empty]
    marked = [record for record, report in pairs if not record.label and report is not None and not report.is_empty]
    for found, what in (
        (without, "have no mask and count on image level only"),
        (empty, "have an empty mask, which is kept as it is"),
    ):
        if found:
            logger.warning(
                "%s: %d of %d anomalous pictures %s (first: %s).",
                data, len(found), num_anomalous, what, found[0].image_path,
            )  # fmt: skip
    if marked:
        logger.warning(
            "%s: the masks of %d normal pictures mark pixels, which are taken as normal (first: %s).",
            data, len(marked), marked[0].image_path,
        )  # fmt: skip
