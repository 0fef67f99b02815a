"""Results of benchmarks beside the paper's figures, as Markdown, CSV or LaTeX."""

import csv
import io
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .benchmarking import read_finished
from .data.benchmarks import BENCHMARKS
from .evaluation import METRICS, TITLES, average_defined, group_by_reason, summarize_reasons
from .paper_results import PAPER, PAPER_RESULTS, PAPER_TRAINING, PAPER_TRAINING_DEFAULT


MEAN = "mean"
# What runs on the two trainings of the paper have in common.
SETTING_KEYS = ("preset", "clip", "image_size", "num_train_epochs", "learning_rate", "batch_size")
# Runs that differ in nothing of this, but for the seed, are one recipe's.
RECIPE_KEYS = (*SETTING_KEYS, "data", "benchmark", "class_names", "object_names", "num_images", "recipe")


class Cell(NamedTuple):
    """One figure over the seeds, in [0, 1].

    Attributes:
        value (`float` or `None`): The mean, None where the metric is undefined.
        deviation (`float` or `None`): The standard deviation of several seeds (n - 1), None for one.
        paper (`float` or `None`): The paper's figure.
    """

    value: float | None
    deviation: float | None
    paper: float | None

    @property
    def difference(self) -> float | None:
        """This figure less the paper's, None where one is missing."""
        return None if self.value is None or self.paper is None else self.value - self.paper


@dataclass(frozen=True)
class Table:
    """The results of one recipe.

    Args:
        title (`str`): What was trained, and on what.
        rows (`dict[str, dict[str, Cell]]`): By data set, and `"mean"`, the cell of each metric.
        marks (`frozenset[str]`): The data sets on whose objects the model was trained, and `"mean"` if they are in it.
        notes (`list[str]`): What a reader must know of the figures.
    """

    title: str
    rows: dict[str, dict[str, Cell]]
    marks: frozenset[str]
    notes: list[str]


def read_tables(folders: Sequence[str | os.PathLike]) -> list[Table]:
    """Reads output folders of `moeclip benchmark` and brings those of one recipe and several seeds together.

    Args:
        folders (`Sequence[str | os.PathLike]`): The folders, each of one model.

    Returns:
        `list[Table]`: one table a recipe, in the order of the folders. A model without a training record has its own.
        Where both trainings of the paper are there, with the same settings and seeds, the first table is the paper's:
        each data set by the model that was trained as the paper's was.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a folder holds no results, or those of two models, or two folders are of the same recipe and seed.
    """
    groups: dict[str, dict[str, dict]] = {}
    for folder in map(str, folders):
        run = _read_run(folder)
        groups.setdefault(_recipe_of(folder, run), {})[folder] = run
    return [_make_table(runs) for runs in (*_combine_trainings(groups.values()), *groups.values())]


def format_tables(tables: Sequence[Table], style: str) -> str:
    """Lays tables out, figures in percent.

    Args:
        tables (`Sequence[Table]`): At least one.
        style (`str`): `"markdown"`, `"csv"` or `"latex"`.

    Returns:
        `str`: the text, with a line break at its end.

    Raises:
        ValueError: If there is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"`style` must be one of {list(STYLES)}, got {style!r}.")
    return STYLES[style](tables)


def _read_run(folder: str) -> dict[str, dict]:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: name an --output of `moeclip benchmark`.")
    run = read_finished(folder)
    if not run:
        raise ValueError(f"{folder} holds no <benchmark>.json: name an --output of `moeclip benchmark`.")
    hashes = {str(results["meta"].get("model_sha256")) for results in run.values()}
    if len(hashes) > 1:
        raise ValueError(f"{folder} holds results of {len(hashes)} models: move those of the others away.")
    return run


def _recipe_of(folder: str, run: dict[str, dict]) -> str:
    record = _record_of(run)
    return folder if record is None else str([record.get(key) for key in RECIPE_KEYS])


def _record_of(run: dict[str, dict]) -> dict | None:
    return next(iter(run.values()))["meta"].get("training")


def _combine_trainings(groups: Iterable[dict[str, dict[str, dict]]]) -> list[dict[str, dict[str, dict]]]:
    """Gives for each setting with both trainings of the paper the runs that its table is made of."""
    settings: dict[str, dict[str, dict[int, tuple[str, dict]]]] = {}
    for runs in groups:
        for folder, run in runs.items():
            record = _record_of(run)
            if record is not None and record["benchmark"] in (PAPER_TRAINING_DEFAULT, *PAPER_TRAINING.values()):
                trainings = settings.setdefault(_setting_of(record), {})
                trainings.setdefault(record["benchmark"], {})[record["seed"]] = (folder, run)
    found = []
    for trainings in settings.values():
        combined = {}
        for seed, (folder, run) in trainings.get(PAPER_TRAINING_DEFAULT, {}).items():
            rows = {key: results for key, results in run.items() if key not in PAPER_TRAINING}
            for key, training in PAPER_TRAINING.items():
                other, results = trainings.get(training, {}).get(seed, ("", {}))
                if key in results:
                    combined[f"{folder} and {other}"] = rows | {key: results[key]}
        if combined:
            found.append(combined)
    return found


def _setting_of(record: dict) -> str:
    """What two trainings must share; the recipes' names differ by the benchmark at their end alone."""
    name = (record["recipe"] or "").removesuffix(record["benchmark"])
    return str([name, *(record[key] for key in SETTING_KEYS)])


def _make_table(runs: dict[str, dict[str, dict]]) -> Table:
    records = {folder: _record_of(run) for folder, run in runs.items()}
    seeds: dict[int, str] = {}
    for folder, record in records.items():
        seed = record and record["seed"]
        if seed in seeds:
            raise ValueError(f"{seeds[seed]} and {folder} are of the same recipe and seed {seed}: name one of them.")
        seeds[seed] = folder
    keys = [key for key in BENCHMARKS if any(key in run for run in runs.values())]
    rows = {key: _make_row(key, [run[key] for run in runs.values() if key in run]) for key in keys}
    shared = [key for key in keys if all(key in run for run in runs.values())]
    rows[MEAN] = _make_mean_row(shared, list(runs.values()))
    marks = {key for key in keys if any(key in run and _trained_objects(run[key]) for run in runs.values())}
    if marks & set(shared):
        marks.add(MEAN)
    return Table(_make_title(runs), rows, frozenset(marks), _make_notes(runs, keys, shared))


def _value(results: dict, metric: str) -> float | None:
    value = results["mean"][metric]
    return None if math.isnan(value) else value


def _make_row(key: str, found: list[dict]) -> dict[str, Cell]:
    return {
        metric: _make_cell([_value(results, metric) for results in found], PAPER_RESULTS[key][metric])
        for metric in METRICS
    }


def _make_mean_row(keys: list[str], runs: list[dict[str, dict]]) -> dict[str, Cell]:
    """Averages over the data sets where a metric is defined, the paper's figures over the same ones."""
    row = {}
    for metric in METRICS:
        defined = [key for key in keys if all(_value(run[key], metric) is not None for run in runs)]
        values = [average_defined([_value(run[key], metric) for key in defined]) if defined else None for run in runs]
        published = [PAPER_RESULTS[key][metric] for key in defined]
        is_comparable = defined and None not in published
        row[metric] = _make_cell(values, average_defined(published) if is_comparable else None)
    return row


def _make_cell(values: list[float | None], paper: float | None) -> Cell:
    defined = [value for value in values if value is not None]
    if not defined:
        return Cell(None, None, paper)
    return Cell(statistics.fmean(defined), statistics.stdev(defined) if len(defined) > 1 else None, paper)


def _make_title(runs: dict[str, dict[str, dict]]) -> str:
    records = [results["meta"].get("training") for run in runs.values() for results in run.values()]
    if records[0] is None:
        return f"{next(iter(runs))}, training not known"
    names = dict.fromkeys(
        f"recipe {record['recipe']}" if record["recipe"] else f"preset {record['preset']}" for record in records
    )
    sources = dict.fromkeys(record["benchmark"] or record["data"] or "own data" for record in records)
    seeds = sorted({record["seed"] for record in records})
    plural = "s" if len(seeds) > 1 else ""
    return f"{' and '.join(names)}, trained on {' and '.join(sources)}, seed{plural} {', '.join(map(str, seeds))}"


def _make_notes(runs: dict[str, dict[str, dict]], keys: list[str], shared: list[str]) -> list[str]:
    notes = [f"paper: the figures that {PAPER} prints, not measured here; difference: measured less printed."]
    if len(runs) > 1:
        notes.append(f"Mean and standard deviation over {len(runs)} seeds.")
    for folder, run in runs.items():
        models = dict.fromkeys(map(_name_model, run.values()))
        notes.append(f"{folder}: {' and '.join(models)}")
    for key in keys:
        if key not in shared:
            number = sum(key in run for run in runs.values())
            notes.append(f"{BENCHMARKS[key].title}: of {number} seeds only, and not in the mean.")
    if len(shared) < len(BENCHMARKS):
        notes.append(f"mean: over the {len(shared)} data sets that all runs have, the paper's over the same.")
    # Of several runs on the same data the first one speaks for all.
    first = {key: next(run[key] for run in runs.values() if key in run) for key in keys}
    notes += _training_notes(first)
    for key, results in first.items():
        notes += _data_notes(key, results)
    return notes


def _name_model(results: dict) -> str:
    meta = results["meta"]
    return f"{meta['model']}, SHA-256 {', '.join(value[:12] for value in meta['model_sha256'].values())}..."


def _training_notes(found: dict[str, dict]) -> list[str]:
    """Says where the paper trained on something else."""
    if _record_of(found) is None:
        return ["What the model was trained on is not known: it has no training record."]
    by_training: dict[str, list[str]] = {}
    for key, results in found.items():
        training = PAPER_TRAINING.get(key, PAPER_TRAINING_DEFAULT)
        if training != results["meta"]["training"]["benchmark"]:
            by_training.setdefault(training, []).append(BENCHMARKS[key].title)
    return [
        f"{', '.join(titles)}: the paper's figures are of training on {BENCHMARKS[training].title}, these are not."
        for training, titles in by_training.items()
    ]


def _data_notes(key: str, results: dict) -> list[str]:
    meta, title, notes = results["meta"], BENCHMARKS[key].title, []
    if _trained_objects(results):
        notes.append(f"{title}*: the model was trained on these objects: {_shorten(_trained_objects(results))}.")
    if meta["left_out"]:
        reasons = [line.removesuffix(".") for line in meta["left_out"]]
        notes.append(f"{title}: {len(reasons)} of its pictures are left out: {_shorten(reasons)}.")
    if meta["count_differences"]:
        notes.append(f"{title}: not the benchmark's test set: {_shorten(meta['count_differences'])}.")
    if meta["mask_threshold"] != BENCHMARKS[key].mask_threshold:
        notes.append(f"{title}: mask values above {meta['mask_threshold']} are anomalous.")
    for reason, metrics in group_by_reason(summarize_reasons(results)).items():
        notes.append(f"{title}: {' and '.join(TITLES[metric] for metric in metrics)} undefined, {reason}.")
    return notes


def _shorten(texts: list[str]) -> str:
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _trained_objects(results: dict) -> list[str]:
    return results["meta"].get("trained_objects") or []


def _name(table: Table, key: str) -> str:
    title = MEAN if key == MEAN else BENCHMARKS[key].title
    return f"{title}*" if key in table.marks else title


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def _texts(cell: Cell, plus_minus: str) -> list[str]:
    value = _percent(cell.value)
    if cell.deviation is not None:
        value += f" {plus_minus} {_percent(cell.deviation)}"
    return [value, _percent(cell.paper), _percent(cell.difference, "+")]


def _to_markdown(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        head = ["data set", *(part for metric in METRICS for part in (TITLES[metric], "paper", "difference"))]
        lines = [head, ["---", *["---:"] * (len(head) - 1)]]
        for key, row in table.rows.items():
            lines.append([_name(table, key), *(text for metric in METRICS for text in _texts(row[metric], "±"))])
        rows = ["| " + " | ".join(line) + " |" for line in lines]
        text = "\n".join([f"### {table.title}", "", *rows, "", *(f"- {note}" for note in table.notes)])
        blocks.append(text.replace("*", "\\*"))
    return "\n\n".join(blocks) + "\n"


def _to_csv(tables: Sequence[Table]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{metric}{part}" for metric in METRICS for part in ("", "_deviation", "_paper", "_difference")]
    writer.writerow(["run", "data_set", *columns, "trained_objects", "notes"])
    for table in tables:
        for key, row in table.rows.items():
            cells = [
                "-" if value is None else f"{100 * value:.2f}"
                for metric in METRICS
                for value in (*row[metric][:2], row[metric].paper, row[metric].difference)
            ]
            notes = " ".join(table.notes) if key == MEAN else ""
            writer.writerow([table.title, key, *cells, "yes" if key in table.marks else "no", notes])
    return text.getvalue()


def _to_latex(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        head = " & ".join(f"\\multicolumn{{3}}{{c}}{{{TITLES[metric]}}}" for metric in METRICS)
        lines = [
            f"% {table.title}",
            f"\\begin{{tabular}}{{l{'rrr' * len(METRICS)}}}",
            "\\hline",
            f" & {head} \\\\",
            "data set" + " & ours & paper & diff." * len(METRICS) + " \\\\",
            "\\hline",
        ]
        for key, row in table.rows.items():
            if key == MEAN:
                lines.append("\\hline")
            cells = [text.replace("-", "$-$") for metric in METRICS for text in _texts(row[metric], "$\\pm$")]
            lines.append(" & ".join([_escape(_name(table, key)), *cells]) + " \\\\")
        lines += ["\\hline", "\\end{tabular}", *(f"% {note}" for note in table.notes)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _escape(text: str) -> str:
    return "".join(f"\\{character}" if character in "&%$#_{}" else character for character in text)


STYLES: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": _to_markdown,
    "csv": _to_csv,
    "latex": _to_latex,
}
