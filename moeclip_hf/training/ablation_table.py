"""What an ablation found: means and deviations over the seeds, as a table and as CSV."""

import csv
import io
import math
import os
import statistics
from collections.abc import Mapping

from ..evaluation import TITLES, group_by_reason, summarize_reasons
from ..whole_file import write_text


SIMILARITY = "expert_similarity"
COLUMN_TITLES = {**TITLES, SIMILARITY: "similarity"}
COLUMNS = tuple(COLUMN_TITLES)


def summarize_ablation(found: Mapping[str, Mapping[int, dict]]) -> dict:
    """Computes each variant's means and standard deviations over its seeds.

    Args:
        found (`Mapping`): For each variant's title and each of its seeds the results of that run; the mean cosine of
            two experts' outputs stands in `meta["expert_similarity"]`.

    Returns:
        `dict`: `variants` holds for each title `mean` and `std` (of the sample, NaN for a single seed) of every
        metric, NaN where it is undefined, under `reasons` why it is, the values of each seed under `seeds`, and the
        `recipe` without its seed.
    """
    return {"variants": {title: _summarize(by_seed) for title, by_seed in found.items()}}


def format_ablation(results: dict) -> str:
    """Lays an ablation out in percent, the experts' similarity as it is, one line a variant.

    Args:
        results (`dict`): As `summarize_ablation` returns them.

    Returns:
        `str`: Lines of plain text, mean and deviation; "-" stands for what is undefined, with the reason under the
        table.
    """
    num_seeds = max(len(summary["seeds"]) for summary in results["variants"].values())
    head = [f"mean over {num_seeds} seed{'s' * (num_seeds > 1)}", *COLUMN_TITLES.values()]
    rows = [[title, *_cells(summary)] for title, summary in results["variants"].items()]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [_line(cells, widths) for cells in (head, *rows)]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, *_notes(results)])


def write_csv(results: dict, path: str | os.PathLike) -> None:
    """Writes an ablation as CSV, one line a variant, values in [0, 1], empty where undefined.

    Args:
        results (`dict`): As `summarize_ablation` returns them.
        path (`str` or `os.PathLike`): The file.

    Raises:
        OSError: If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "num_seeds", *(f"{column}_{kind}" for column in COLUMNS for kind in ("mean", "std"))])
    for title, summary in results["variants"].items():
        values = [summary[kind][column] for column in COLUMNS for kind in ("mean", "std")]
        writer.writerow([title, len(summary["seeds"]), *("" if math.isnan(value) else value for value in values)])
    write_text(path, text.getvalue())


def _summarize(by_seed: Mapping[int, dict]) -> dict:
    seeds = {str(seed): _values(results) for seed, results in by_seed.items()}
    columns = {column: [values[column] for values in seeds.values()] for column in COLUMNS}
    first = next(iter(by_seed.values()))
    reasons = summarize_reasons(first)
    if first["meta"][SIMILARITY] is None:
        reasons[SIMILARITY] = "fewer than two experts"
    return {
        "mean": {column: statistics.fmean(values) for column, values in columns.items()},
        "std": {column: _deviation(values) for column, values in columns.items()},
        "reasons": reasons,
        "seeds": seeds,
        "recipe": {key: value for key, value in first["meta"]["recipe"].items() if key != "seed"},
    }


def _values(results: dict) -> dict[str, float]:
    values = {**results["mean"], SIMILARITY: results["meta"][SIMILARITY]}
    return {column: math.nan if values[column] is None else values[column] for column in COLUMNS}


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 and not any(map(math.isnan, values)) else math.nan


def _cells(summary: dict) -> list[str]:
    cells = []
    for column in COLUMNS:
        mean, std = summary["mean"][column], summary["std"][column]
        scale, digits = (1, 2) if column == SIMILARITY else (100, 1)
        if math.isnan(mean):
            cells.append("-")
        elif math.isnan(std):
            cells.append(f"{scale * mean:.{digits}f}")
        else:
            cells.append(f"{scale * mean:.{digits}f} ± {scale * std:.{digits}f}")
    return cells


def _notes(results: dict) -> list[str]:
    """One line for each variant and reason of undefined values."""
    return [
        f"-  {title}: {' and '.join(COLUMN_TITLES[column] for column in columns)} undefined, {reason}"
        for title, summary in results["variants"].items()
        for reason, columns in group_by_reason(summary["reasons"]).items()
    ]


def _line(cells: list[str], widths: list[int]) -> str:
    title, *figures = cells
    aligned = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
    return "  ".join([title.ljust(widths[0]), *aligned])
