"""What is found of a data set against what there should be, file by file where it differs."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from .benchmarks import Benchmark, describe_count_differences, find_benchmark
from .checks import SampleReport, check_samples, name_picture
from .folders import Scan
from .loading import make_row_reader, make_rows, refuse_options_of_own_data
from .sources import find_benchmark_pictures, find_own_pictures
from .tables import is_table, read_table


@dataclass(frozen=True)
class DataReport:
    """What the check of a data set found out.

    Args:
        title (`str`): What was checked, and where.
        counts (`dict[str, tuple[int, int]]`): Normal and anomalous pictures of each class.
        expected (`dict[str, tuple[int, int]]`): What the benchmark has of each class, where that is known.
        differences (`list[str]`): What is not as it should be, a line each that begins with the file.
        notes (`list[str]`): What is worth knowing, but no fault.
    """

    title: str
    counts: dict[str, tuple[int, int]]
    expected: dict[str, tuple[int, int]]
    differences: list[str]
    notes: list[str]


def check_data(
    data: str | os.PathLike,
    root: str | os.PathLike | None = None,
    *,
    list_file: str | os.PathLike | None = None,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> DataReport:
    """Decodes every picture and mask of a data set and compares it with what there should be.

    Of a benchmark that is known from the table: how many pictures each class has, and that anomalous ones have masks.
    Own data should be readable, and have masks for all anomalous pictures or for none.

    Args:
        data (`str` or `os.PathLike`):
            A benchmark's key, with its folder as `root`, or own data as in [`load_anomaly_dataset`].
        root (`str` or `os.PathLike`, *optional*):
            The benchmark's folder, or the one to which a list's paths are relative.
        list_file (`str` or `os.PathLike`, *optional*):
            For benchmarks: the list of pictures to read, in place of what the folders hold.
        split (`str`, *optional*):
            For own data, as in [`load_anomaly_dataset`].
        columns (`dict[str, str]`, *optional*):
            For own data, as in [`load_anomaly_dataset`].
        strict (`bool`, *optional*, defaults to False):
            Whether to stop at the first file that is missing from a list or cannot be read.
        progress (`bool`, *optional*, defaults to True):
            Whether to show a progress bar on stderr.

    Returns:
        `DataReport`: what was found.

    Raises:
        FileNotFoundError: If `data`, `root` or the list does not exist.
        ValueError: If there is nothing to read, a list is malformed, a path leaves its root, or `strict` and a picture
            cannot be read.
    """
    benchmark = find_benchmark(data, root)
    scan, rows, read_row = _find_rows(data, root, benchmark, list_file, split, columns, strict)
    checked = check_samples(read_row, len(rows), decode=True, strict=strict)
    reports = list(tqdm(checked, total=len(rows), unit="picture", desc="reading", disable=not progress))
    class_names, labels = list(rows["class_name"]), list(rows["label"])
    unmasked = [row for row, report in _readable(labels, reports, 1) if not report.has_mask]
    should_have_masks = any(report.has_mask for report in reports) if benchmark is None else benchmark.has_masks
    differences = [
        *([] if labels else [f"{data}: has no pictures."]),
        *scan.missing,
        *(report.problem for report in reports if report.problem),
        *(f"{_name_row(read_row, row)}: has no mask." for row in (unmasked if should_have_masks else [])),
        *(f"{mask}: fits no picture." for mask in scan.unused_masks),
    ]
    if benchmark is not None:
        differences += [f"{line}." for line in describe_count_differences(benchmark, class_names, labels)]
    counts = Counter(zip(class_names, labels, strict=True))
    return DataReport(
        title=str(data) if benchmark is None else f"{benchmark.title} in {root}",
        counts={name: (counts[name, 0], counts[name, 1]) for name in dict.fromkeys(class_names)},
        expected={} if benchmark is None else benchmark.class_counts,
        differences=differences,
        notes=_make_notes(labels, reports),
    )


def _find_rows(data, root, benchmark: Benchmark | None, list_file, split, columns, strict: bool) -> tuple:
    """What a scan or a list found, the rows, and what reads one of them."""
    root, scan = None if root is None else Path(root), Scan([])
    if benchmark is not None:
        refuse_options_of_own_data(benchmark, split, columns)
        scan = find_benchmark_pictures(benchmark, root, None if list_file is None else Path(list_file), strict=strict)
    elif list_file is not None:
        raise ValueError(f"`list_file` belongs to benchmarks: give the list itself in place of {str(data)!r}.")
    elif is_table(Path(data)):
        rows = read_table(Path(data), split, columns)
        return scan, rows, make_row_reader(rows, Path(data) if Path(data).exists() else None)
    elif columns:
        raise ValueError(f"`columns` belong to data sets of the package `datasets`, but {str(data)!r} is none.")
    else:
        scan = find_own_pictures(Path(data), root, split, strict=strict)
    rows = make_rows(scan.records)
    return scan, rows, make_row_reader(rows)


def _name_row(read_row: Callable[[int], dict], row: int) -> str:
    return name_picture(read_row(row)["image"], f"picture {row}")


def format_report(report: DataReport) -> str:
    """Lays a report out: a table of the counts, then the notes, then each difference on a line of its own.

    Args:
        report (`DataReport`): What was found.

    Returns:
        `str`: lines of plain text.
    """
    names = list(dict.fromkeys([*report.expected, *report.counts]))
    rows = [("class", "normal", "anomalous")]
    for name in names:
        found, expected = report.counts.get(name, (0, 0)), report.expected.get(name)
        rows.append((name, *(_format_count(found, expected, label) for label in (0, 1))))
    totals = [tuple(map(sum, zip(*counts.values(), strict=True))) for counts in (report.counts, report.expected)]
    if len(names) > 1:
        expected = totals[1] or None
        rows.append(("in all", *(_format_count(totals[0] or (0, 0), expected, label) for label in (0, 1))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2])]) for row in rows]
    verdict = f"{len(report.differences)} differences:" if report.differences else "All is as expected."
    if len(report.differences) == 1:
        verdict = "1 difference:"
    differences = [f"  {difference}" for difference in report.differences]
    return "\n".join([report.title, *table, *report.notes, verdict, *differences])


def _readable(labels: list[int], reports: list[SampleReport], label: int) -> list[tuple[int, SampleReport]]:
    """The rows of a label that can be read, with their numbers."""
    return [(row, report) for row, report in enumerate(reports) if labels[row] == label and not report.problem]


def _make_notes(labels: list[int], reports: list[SampleReport]) -> list[str]:
    anomalous = [report for _, report in _readable(labels, reports, 1)]
    masked = [report for report in anomalous if report.has_mask]
    normal = [report for _, report in _readable(labels, reports, 0)]
    counted = (
        ([report for report in masked if report.is_mask_empty], anomalous, "anomalous pictures have an empty mask"),
        (
            [report for report in normal if report.has_mask and not report.is_mask_empty],
            normal,
            "normal pictures have a mask that marks pixels, which count as normal",
        ),
        (
            [report for report in masked if report.is_mask_jpeg],
            masked,
            "masks are JPEG files with soft edges: --mask-threshold 127 takes them as they were drawn",
        ),
    )
    notes = [f"Note: {len(found)} of {len(whole)} {what}." for found, whole, what in counted if found]
    if not masked:
        notes.append("Note: no masks: the pixel metrics are undefined, and training takes the image labels alone.")
    if not anomalous or not normal:
        notes.append("Note: pictures of one kind only: the image metrics are undefined.")
    return notes


def _format_count(found: tuple[int, int], expected: tuple[int, int] | None, label: int) -> str:
    return str(found[label]) if expected is None else f"{found[label]} of {expected[label]}"
