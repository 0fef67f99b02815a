"""Own pictures or a benchmark as a `datasets.Dataset`."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from .benchmarks import Benchmark, describe_count_differences, find_benchmark, get_benchmark
from .checks import SampleReport, check_samples, name_picture
from .folders import Scan
from .records import AnomalyRecord
from .sources import find_benchmark_pictures, find_own_pictures
from .tables import FEATURES, datasets, is_table, read_table


logger = logging.getLogger(__name__)


def load_benchmark(
    key: str, root: str | os.PathLike, *, list_file: str | os.PathLike | None = None, strict: bool = True
) -> datasets.Dataset:
    """Reads the test set of one of the paper's benchmarks from disk.

    Pictures that are missing, by the counts of the table, are said in the log.

    Args:
        key (`str`):
            One of [`BENCHMARKS`].
        root (`str` or `os.PathLike`):
            Its folder, which no path may leave.
        list_file (`str` or `os.PathLike`, *optional*):
            JSON lines or CSV with the pictures to read, in place of what the folders hold. Without it a single `*.jsonl`
            in `root` is read where the folders do not have the benchmark's layout.
        strict (`bool`, *optional*, defaults to True):
            Whether a picture that cannot be read is an error. If not, it is left out, counted and named in the log.

    Returns:
        `datasets.Dataset`: with the columns of [`load_anomaly_dataset`] and the object names of the table.

    Raises:
        FileNotFoundError: If `root` or a file of a list does not exist.
        ValueError: If there is no such benchmark, no picture of it, a list is malformed, a path leaves `root`, or, if
            `strict`, a file is not a picture or a mask has another size than its picture.
    """
    dataset, _ = read_benchmark(key, root, list_file=list_file, strict=strict)
    return dataset


def read_benchmark(
    key: str, root: str | os.PathLike, *, list_file: str | os.PathLike | None = None, strict: bool = True
) -> tuple[datasets.Dataset, list[str]]:
    """Reads the test set of a benchmark like [`load_benchmark`], and tells what it left out.

    Args:
        key (`str`): As in [`load_benchmark`], like the following.
        root (`str` or `os.PathLike`): Its folder.
        list_file (`str` or `os.PathLike`, *optional*): The list of pictures to read.
        strict (`bool`, *optional*, defaults to True): Whether a picture that cannot be read is an error.

    Returns:
        `tuple[datasets.Dataset, list[str]]`: the pictures, and a line for each that cannot be read or that a list names
        although it is not there.

    Raises:
        FileNotFoundError: As [`load_benchmark`].
        ValueError: As [`load_benchmark`].
    """
    benchmark = get_benchmark(key)
    scan = find_benchmark_pictures(
        benchmark, Path(root), None if list_file is None else Path(list_file), strict=strict
    )
    dataset, left_out = _build(scan, str(root), strict)
    differences = describe_count_differences(benchmark, dataset["class_name"], dataset["label"])
    if differences:
        logger.warning(
            "%s: not the whole of %s: %s. `moeclip data check %s %s` names the files.",
            root, benchmark.title, "; ".join(differences), key, root,
        )  # fmt: skip
    return dataset, left_out


def load_anomaly_dataset(
    data: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    object_name: str | None = None,
    strict: bool = True,
) -> datasets.Dataset:
    """Reads a data set of normal and anomalous pictures, from disk or from the Hub.

    Every picture's header is read and every mask is decoded at once, so that damaged files and masks of another size
    are found before hours of work. Pictures without a mask although they are anomalous, and empty masks of anomalous
    pictures, are counted and said in the log; both are kept as they are.

    Args:
        data (`str` or `os.PathLike`):
            A folder in MVTec layout (one class or many); plain folders, `good` and others for the kinds of defects,
            with or without a folder for each class; a list, JSON lines or CSV; a folder with exactly one list; a data
            set of the package `datasets`, by its id on the Hub or as `save_to_disk`, Parquet or a folder with a
            `metadata` file; or the key of one of [`BENCHMARKS`], with its folder as `root`.
        root (`str` or `os.PathLike`, *optional*):
            For lists: the folder to which their paths are relative, by default the list's own. No path, and no link on
            it, may leave the root folder.
        split (`str`, *optional*):
            For folders in MVTec layout: `"test"`, as the paper trains and evaluates and which is the default, or
            `"train"`. For a data set of the package `datasets`: one of its splits; may be left out if it has one.
        columns (`dict[str, str]`, *optional*):
            What a data set of the package `datasets` calls `image`, `mask`, `label`, `class_name` and `object_name`,
            where it does not call them so.
        object_name (`str`, *optional*):
            The object's name in the prompts for every picture, in place of what the data say.
        strict (`bool`, *optional*, defaults to True):
            Whether a picture that cannot be read is an error. If not, pictures are decoded whole, and those that cannot
            be read, or whose mask cannot, are left out, counted and named in the log.

    Returns:
        `datasets.Dataset`: with columns `image` (`datasets.Image`), `mask` (`datasets.Image`, None where there is
        none), `label` (0 normal, 1 anomalous), `class_name` and `object_name`, the class's name with spaces for
        underscores unless a list or a benchmark's table gives another, `"object"` for a class without a name.

    Raises:
        FileNotFoundError: If `data`, `root` or a file of a list does not exist.
        ValueError: If there is no picture to read, a list is malformed, a path leaves its root, or, if `strict`, a file
            is not a picture or a mask has another size than its picture.
    """
    benchmark = find_benchmark(data, root)
    if benchmark is not None:
        refuse_options_of_own_data(benchmark, split, columns, object_name)
        return load_benchmark(benchmark.key, root, strict=strict)
    data = Path(data)
    if is_table(data):
        if root is not None:
            raise ValueError(f"`root` belongs to lists, but {str(data)!r} is a data set of its own: leave it out.")
        table = read_table(data, split, columns, object_name)
        dataset, _ = finish_dataset(table, str(data), strict, root=data if data.exists() else None)
        return dataset
    if columns:
        raise ValueError(f"`columns` belong to data sets of the package `datasets`, but {str(data)!r} is none.")
    scan = find_own_pictures(data, None if root is None else Path(root), split, strict=strict)
    dataset, _ = _build(scan, str(data), strict, object_name)
    return dataset


def refuse_options_of_own_data(
    benchmark: Benchmark, split: str | None, columns: dict[str, str] | None, object_name: str | None = None
) -> None:
    """Makes sure that nothing is asked for that a benchmark does not leave open.

    Args:
        benchmark (`Benchmark`): Which one is read.
        split (`str`, *optional*): As in [`load_anomaly_dataset`].
        columns (`dict[str, str]`, *optional*): As in [`load_anomaly_dataset`].
        object_name (`str`, *optional*): As in [`load_anomaly_dataset`].

    Raises:
        ValueError: If another split than the test split, columns or an object's name are asked for.
    """
    if split not in (None, "test"):
        raise ValueError(f"`split` {split!r}: of a benchmark only the test split is read: leave it out.")
    if columns or object_name:
        raise ValueError(f"`columns` and `object_name` belong to own data: {benchmark.title} has names for both.")


def _build(scan: Scan, name: str, strict: bool, object_name: str | None = None) -> tuple[datasets.Dataset, list[str]]:
    for missing in scan.missing:
        logger.warning("%s", missing)
    if not scan.records:
        raise ValueError(f"`data` {name!r} has no pictures.")
    if scan.unused_masks:
        logger.warning(
            "%s: %d masks fit no picture by their names (first: %s).",
            name, len(scan.unused_masks), scan.unused_masks[0],
        )  # fmt: skip
    dataset, unreadable = finish_dataset(make_rows(scan.records, object_name), name, strict)
    return dataset, [*scan.missing, *unreadable]


def make_rows(records: list[AnomalyRecord], object_name: str | None = None) -> datasets.Dataset:
    """Turns pictures that were found into rows.

    Args:
        records (`list[AnomalyRecord]`): The pictures.
        object_name (`str`, *optional*): The object's name for all of them, in place of their own.

    Returns:
        `datasets.Dataset`: with the columns of [`load_anomaly_dataset`].
    """
    columns = {
        "image": [str(record.image_path.absolute()) for record in records],
        "mask": [None if record.mask_path is None else str(record.mask_path.absolute()) for record in records],
        "label": [record.label for record in records],
        "class_name": [record.class_name for record in records],
        "object_name": [object_name or record.object_name for record in records],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def finish_dataset(
    dataset: datasets.Dataset, name: str, strict: bool, root: Path | None = None
) -> tuple[datasets.Dataset, list[str]]:
    """Checks pictures and masks, says in the log what was found, and hands masks out upright.

    Args:
        dataset (`datasets.Dataset`):
            With the columns of [`load_anomaly_dataset`].
        name (`str`):
            What the user calls it.
        strict (`bool`):
            Whether a picture that cannot be read is an error, or is left out.
        root (`Path`, *optional*):
            The folder in which files have to lie that the rows refer to, where that is not known yet.

    Returns:
        `tuple[datasets.Dataset, list[str]]`: the rows that can be read, and a line for each of the others.

    Raises:
        UnreadableSampleError: If `strict` and a picture or a mask cannot be read.
        ValueError: If no picture can be read, or a file lies outside of `root`.
    """
    reports = list(check_samples(make_row_reader(dataset, root), len(dataset), decode=not strict, strict=strict))
    kept = [index for index, report in enumerate(reports) if not report.problem]
    problems = [report.problem for report in reports if report.problem]
    if problems:
        logger.warning("%s: %d of %d pictures cannot be read and are left out:", name, len(problems), len(reports))
        for problem in problems:
            logger.warning("  %s", problem)
        if not kept:
            raise ValueError(f"{name}: none of the {len(reports)} pictures can be read.")
        dataset, reports = dataset.select(kept), [reports[index] for index in kept]
    if any(report.upright_mask for report in reports):
        dataset = _replace_masks(dataset, reports)
    _log_counts(name, undecoded(dataset), reports)
    return dataset, problems


def make_row_reader(dataset: datasets.Dataset, root: Path | None = None) -> Callable[[int], dict]:
    """Makes a function that reads rows with their pictures undecoded.

    Args:
        dataset (`datasets.Dataset`):
            With the columns of [`load_anomaly_dataset`].
        root (`Path`, *optional*):
            The folder in which files have to lie that the rows refer to, where that is not known yet.

    Returns:
        `Callable`: gives a row by its number; raises a ValueError if its files lie outside of `root`.
    """
    rows = undecoded(dataset)

    def read_row(index: int) -> dict:
        row = rows[index]
        for cell in (row["image"], row["mask"]) if root is not None else ():
            is_file = cell is not None and cell["bytes"] is None
            if is_file and not Path(cell["path"]).resolve().is_relative_to(root.resolve()):
                raise ValueError(f"{cell['path']}: lies outside of {str(root)!r}: copy it there.")
        return row

    return read_row


def undecoded(dataset: datasets.Dataset) -> datasets.Dataset:
    """Leaves pictures and masks as they are stored, so that errors can name the file.

    Args:
        dataset (`datasets.Dataset`): With columns `image` and `mask` of type `datasets.Image`.

    Returns:
        `datasets.Dataset`: the same rows, with cells `{"path": ..., "bytes": ...}`.
    """
    return dataset.cast_column("image", datasets.Image(decode=False)).cast_column("mask", datasets.Image(decode=False))


def _replace_masks(dataset: datasets.Dataset, reports: list[SampleReport]) -> datasets.Dataset:
    """Puts the upright masks in place of those that a reader would leave lying."""
    rows = undecoded(dataset)
    masks = [
        # `datasets` drops the bytes where a path is given.
        {"path": None, "bytes": report.upright_mask} if report.upright_mask else row["mask"]
        for row, report in zip(rows, reports, strict=True)
    ]
    columns = {name: list(rows[name]) for name in rows.column_names if name != "mask"}
    return datasets.Dataset.from_dict({"mask": masks, **columns}, features=FEATURES).select_columns(list(FEATURES))


def _log_counts(name: str, rows: datasets.Dataset, reports: list[SampleReport]) -> None:
    labels = list(rows["label"])
    num_anomalous = sum(labels)
    logger.info(
        "%s: %d pictures of %d classes, %d normal and %d anomalous.",
        name, len(rows), len(set(rows["class_name"])), len(rows) - num_anomalous, num_anomalous,
    )  # fmt: skip
    pairs = list(enumerate(zip(labels, reports, strict=True)))
    without = [row for row, (label, report) in pairs if label and not report.has_mask]
    empty = [row for row, (label, report) in pairs if label and report.has_mask and report.is_mask_empty]
    marked = [row for row, (label, report) in pairs if not label and report.has_mask and not report.is_mask_empty]

    def first(found: list[int]) -> str:
        return name_picture(rows[found[0]]["image"], f"picture {found[0]}")

    for found, what in (
        (without, "have no mask and count on image level only"),
        (empty, "have an empty mask, which is kept as it is"),
    ):
        if found:
            logger.warning(
                "%s: %d of %d anomalous pictures %s (first: %s).", name, len(found), num_anomalous, what, first(found)
            )
    if marked:
        logger.warning(
            "%s: the masks of %d normal pictures mark pixels, which are taken as normal (first: %s).",
            name, len(marked), first(marked),
        )  # fmt: skip
