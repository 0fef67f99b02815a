"""Tables of results beside the paper's figures."""

import csv
import io
import statistics

import pytest

from moeclip_hf.data.benchmarks import BENCHMARKS
from moeclip_hf.evaluation import METRICS, write_results
from moeclip_hf.paper_results import PAPER_RESULTS
from moeclip_hf.reporting import format_tables, read_tables
from moeclip_hf.training_record import TRAINING_RECORD_KEYS


def write_run(folder, means, seed=None, model="a", trained_on="visa", recipe=None, **meta):
    """Results of one model: `means` by benchmark, in percent and in the order of the metrics."""
    training = None
    if seed is not None:
        training = dict.fromkeys(TRAINING_RECORD_KEYS) | {"preset": "paper", "benchmark": trained_on, "seed": seed}
        training["recipe"] = recipe or f"some/recipe_{trained_on}"
    for key, values in means.items():
        mean = {metric: None if value is None else value / 100 for metric, value in zip(METRICS, values, strict=True)}
        undefined = dict.fromkeys((metric for metric in METRICS if mean[metric] is None), "no masks")
        about = {
            "benchmark": key, "model": "some/model", "model_sha256": {"model.safetensors": model * 64}, "training": training,
            "mask_threshold": 0, "trained_objects": [], "count_differences": [], "left_out": [],
            "reasons": {"mean": dict.fromkeys(undefined, "undefined for every class"), "classes": {key: undefined}},
        }  # fmt: skip
        write_results({"mean": mean, "classes": {key: mean}, "meta": about | meta}, folder / f"{key}.json")
    return folder


def cells(text, name):
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_the_papers_means_are_those_of_its_rows():
    assert list(PAPER_RESULTS) == list(BENCHMARKS)
    means = [statistics.fmean(row[m] for row in PAPER_RESULTS.values() if row[m] is not None) for m in METRICS]
    assert [round(100 * mean, 1) for mean in means] == [89.6, 90.6, 94.3, 47.5]


def test_markdown_of_one_run(tmp_path):
    run = write_run(tmp_path / "run", {"btad": (94.1, 97.0, 96.8, 50.9), "head_ct": (90.0, 95.5, None, None)})
    text = format_tables(read_tables([run]), "markdown")
    assert cells(text, "BTAD") == "94.1 93.1 +1.0 97.0 98.0 -1.0 96.8 96.8 +0.0 50.9 50.4 +0.5".split()
    assert cells(text, "Head CT")[6:] == ["-"] * 6
    # The mean of the paper's figures is over the same data sets.
    assert cells(text, "mean")[:3] == [f"{(94.1 + 90) / 2:.1f}", f"{(93.1 + 96.6) / 2:.1f}", "-2.8"]
    assert cells(text, "mean")[6:9] == ["96.8", "96.8", "+0.0"]
    assert "not measured here" in text
    assert "over the 2 data sets" in text
    assert "it has no training record" in text
    assert "Head CT: pixel AUROC and pixel AP undefined, no masks." in text


def test_seeds_are_a_mean_and_a_deviation(tmp_path):
    runs = [
        write_run(
            tmp_path / str(seed),
            {"btad": (value, 90, 90, 40), "rsdd": (80 + value / 10, 90, 90, 40)},
            seed,
            model=name,
        )
        for seed, value, name in ((1, 90.0, "a"), (2, 92.0, "b"), (3, 98.0, "c"))
    ]
    tables = read_tables(runs)
    assert len(tables) == 1
    text = format_tables(tables, "markdown")
    assert "seeds 1, 2, 3" in text
    assert cells(text, "BTAD")[0] == f"93.3 ± {statistics.stdev([90, 92, 98]):.1f}"
    of_means = [(value + 80 + value / 10) / 2 for value in (90, 92, 98)]
    assert cells(text, "mean")[0] == f"{statistics.fmean(of_means):.1f} ± {statistics.stdev(of_means):.1f}"
    assert "over 3 seeds" in text
    assert "are of training on" not in text


def test_the_papers_two_trainings_make_its_table(tmp_path):
    of_visa = [
        write_run(tmp_path / f"v{seed}", {"mvtec": (90 + seed, 96, 92, 45), "btad": (92, 98, 96, 50)}, seed, model="a")
        for seed in (1, 2)
    ]
    of_mvtec = [
        write_run(
            tmp_path / f"m{seed}",
            {"visa": (80 + seed, 86, 95, 26), "btad": (10, 10, 10, 10)},
            seed,
            model="b",
            trained_on="mvtec",
        )
        for seed in (1, 2)
    ]
    tables = read_tables([*of_visa, *of_mvtec])
    assert [list(table.rows) for table in tables] == [
        ["mvtec", "visa", "btad", "mean"],
        ["mvtec", "btad", "mean"],
        ["visa", "btad", "mean"],
    ]
    text = format_tables(tables[:1], "markdown")
    assert "recipe some/recipe_visa and recipe some/recipe_mvtec, trained on visa and mvtec, seeds 1, 2" in text
    assert cells(text, "VisA")[:2] == [f"81.5 ± {statistics.stdev([81, 82]):.1f}", "83.6"]
    assert cells(text, "BTAD")[0] == "92.0 ± 0.0"
    assert cells(text, "mean")[0].startswith("88.3 ± ")
    assert "paper's figures are of training on" not in text
    assert f"{of_visa[0]} and {of_mvtec[0]}: some/model, SHA-256 aaaaaaaaaaaa... and some/model, SHA-256 bbb" in text
    # another recipe, a seed without its counterpart, and the benchmark that only the second training serves
    assert len(read_tables([of_visa[0], of_mvtec[1]])) == 2
    other = write_run(
        tmp_path / "other", {"visa": (80, 80, 80, 20)}, 1, model="c", trained_on="mvtec", recipe="ablations/mvtec"
    )
    assert len(read_tables([of_visa[0], other])) == 2
    without = write_run(tmp_path / "without", {"rsdd": (80, 80, 80, 20)}, 1, model="d", trained_on="mvtec")
    assert len(read_tables([of_visa[0], without])) == 2


def test_other_recipes_have_their_own_table_and_the_same_seed_twice_is_an_error(tmp_path):
    one = write_run(tmp_path / "one", {"btad": (90, 90, 90, 40)}, seed=1)
    two = write_run(tmp_path / "two", {"btad": (80, 90, 90, 40)}, seed=1, model="b")
    other = write_run(tmp_path / "other", {"btad": (70, 90, 90, 40)})
    assert len(read_tables([one, other])) == 2
    with pytest.raises(ValueError, match="same recipe and seed 1"):
        read_tables([one, two])


def test_a_data_set_that_a_seed_lacks_is_not_in_the_mean(tmp_path):
    one = write_run(tmp_path / "one", {"btad": (90, 90, 90, 40), "rsdd": (50, 50, 50, 50)}, seed=1)
    two = write_run(tmp_path / "two", {"btad": (80, 90, 90, 40)}, seed=2, model="b")
    text = format_tables(read_tables([one, two]), "markdown")
    assert cells(text, "mean")[0] == cells(text, "BTAD")[0] == "85.0 ± 7.1"
    assert "RSDD: of 1 seeds only, and not in the mean." in text


def test_marks_and_notes(tmp_path):
    meta = {"trained_objects": ["candle"], "mask_threshold": 127, "count_differences": ["a", "b", "c", "d"]}
    meta["left_out"] = ["/data/1.JPG: not a picture.", "/data/2.JPG: cut short."]
    run = write_run(tmp_path / "run", {"visa": (80, 80, 80, 30)}, seed=1, **meta)
    text = format_tables(read_tables([run]), "markdown")
    assert "| VisA\\* |" in text
    assert "| mean\\* |" in text
    assert "VisA\\*: the model was trained on these objects: candle." in text
    assert "VisA: 2 of its pictures are left out: /data/1.JPG: not a picture; /data/2.JPG: cut short." in text
    assert "VisA: mask values above 127 are anomalous." in text
    assert "VisA: not the benchmark's test set: a; b; c; and 1 more." in text
    assert "VisA: the paper's figures are of training on MVTec-AD, these are not." in text


def test_csv_has_a_row_a_data_set(tmp_path):
    run = write_run(tmp_path / "run", {"btad": (94.12, 97, 96.8, 50.9), "colon_db": (None, None, 80, 30)}, seed=1)
    rows = list(csv.DictReader(io.StringIO(format_tables(read_tables([run]), "csv"))))
    assert [row["data_set"] for row in rows] == ["btad", "colon_db", "mean"]
    assert (rows[0]["image_auroc"], rows[0]["image_auroc_paper"], rows[0]["image_auroc_difference"]) == (
        "94.12",
        "93.10",
        "1.02",
    )
    assert rows[1]["image_auroc"] == rows[1]["image_auroc_deviation"] == "-"
    assert rows[2]["pixel_ap"] == "40.45"


def test_latex_is_whole(tmp_path):
    run = write_run(tmp_path / "run", {"btad": (94.1, 97, 96.8, 50.9)}, seed=1)
    lines = format_tables(read_tables([run]), "latex").splitlines()
    rows = [line for line in lines if line.endswith("\\\\")]
    assert {line.count("&") for line in rows[1:]} == {12}
    assert lines.count("\\end{tabular}") == 1
    assert "BTAD & 94.1 & 93.1 & +1.0 & 97.0 & 98.0 & $-$1.0 & 96.8" in rows[2]


def test_folders_that_hold_no_results_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_tables([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="holds no <benchmark>.json"):
        read_tables([tmp_path])
    write_run(tmp_path / "evaluated", {"btad": (94.1, 97, 96.8, 50.9)}, benchmark=None)
    with pytest.raises(ValueError, match="btad.json holds no results of `moeclip benchmark`: move it away"):
        read_tables([tmp_path / "evaluated"])
    write_run(tmp_path, {"btad": (94.1, 97, 96.8, 50.9)})
    write_run(tmp_path, {"rsdd": (94.1, 97, 96.8, 50.9)}, model="b")
    with pytest.raises(ValueError, match="results of 2 models"):
        read_tables([tmp_path])
    with pytest.raises(ValueError, match="`style` must be one of"):
        format_tables([], "html")
