"""`moeclip benchmark` and `moeclip report` from the command line to the table; on two processes, and killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data.miniatures import write_miniature

from moeclip_hf.cli import main
from moeclip_hf.demo import DEMO_MODEL


ROOT = Path(__file__).parents[2]
KEYS = ("btad", "head_ct", "cvc_300")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    for key in KEYS:
        (folder / key).mkdir()
        write_miniature(folder / key, key)
    return folder


@pytest.fixture(scope="module")
def finished(data_root):
    """The output of one whole run."""
    output = data_root / "out"
    assert main(["benchmark", *options(data_root, output)]) == 0
    return output


def options(data_root, output):
    return ["--model", DEMO_MODEL, "--data-root", str(data_root), "--output", str(output), "--device", "cpu"]


def start(*arguments, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "moeclip_hf.cli", "benchmark", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def figures(output):
    found = {path.name: json.loads(path.read_text()) for path in sorted(output.glob("*.json"))}
    return {name: (results["mean"], results["classes"]) for name, results in found.items()}


def test_tables_are_printed_and_the_rest_is_said(finished, data_root, capsys):
    assert main(["benchmark", *options(data_root, finished)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[1].split()[:2] == ["data", "set"]
    assert [line.split()[0] for line in lines[3:6]] == list(KEYS)
    assert lines[4].split()[-2:] == ["-", "-"]
    assert "-  head_ct: pixel AUROC and pixel AP undefined, no masks" in lines
    for key in KEYS:
        assert f"{key}: kept from" in captured.err
    assert "left out" in captured.err


def test_report_prints_or_writes(finished, tmp_path, capsys):
    assert main(["report", str(finished)]) == 0
    assert "| BTAD |" in capsys.readouterr().out
    assert main(["report", str(finished), "--format", "latex", "--output", str(tmp_path / "new" / "table.tex")]) == 0
    assert "\\begin{tabular}" in (tmp_path / "new" / "table.tex").read_text()
    assert main(["report", str(finished), "--output", str(tmp_path)]) == 1
    assert "is a folder: name a file in it" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    assert "moeclip: error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--benchmarks", "rsdd"], "holds no folder 'rsdd'"),
        (["--benchmarks", "mvtek"], "'mvtek' is no benchmark"),
        (["--data-root", "nowhere"], "'nowhere' is no folder"),
        (["--model", "./nowhere"], "nowhere"),
        (["--mask-threshold", "-1"], "--mask-threshold is -1, but must be 0 or more"),
        (["--batch-size", "0"], "--batch-size is 0, but must be 1 or more"),
        (["--output", __file__], "is a file: name a folder"),
    ],
)
def test_errors_are_one_line_that_names_the_argument(data_root, tmp_path, capsys, change, message):
    assert main(["benchmark", *options(data_root, tmp_path / "out"), *change]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("moeclip: error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_no_name_of_a_benchmark_is_wrong_usage(data_root, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", *options(data_root, tmp_path / "out"), "--benchmarks", " ,"])
    assert stopped.value.code == 2
    assert "argument --benchmarks: ' ,' names no benchmark" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["benchmark", "report"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    names = {
        "benchmark": "model data-root benchmarks output allow-trained-objects strict mask-threshold batch-size "
        "num-workers device dtype",
        "report": "format output",
    }
    assert all(f"--{name}" in text for name in names[command].split())


def assert_same_figures(found, expected, within):
    assert found.keys() == expected.keys()
    for name, (mean, classes) in expected.items():
        assert found[name][0] == pytest.approx(mean, abs=within)
        assert list(found[name][1]) == list(classes)
        for key, values in classes.items():
            assert found[name][1][key] == pytest.approx(values, abs=within)


def test_two_processes_write_what_one_does(finished, data_root, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ("torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port), "-m")
    process = start(*options(data_root, tmp_path), launcher=launcher)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr[-3000:]
    assert stdout.count("data set") == 1
    assert_same_figures(figures(tmp_path), figures(finished), within=1e-6)
    meta = json.loads((tmp_path / "btad.json").read_text())["meta"]
    assert (meta["num_processes"], meta["num_images"]) == (2, 9)


def test_a_killed_run_goes_on_at_the_data_set_where_it_stopped(finished, data_root, tmp_path, capsys):
    process = start(*options(data_root, tmp_path))
    deadline = time.monotonic() + 240
    while not (tmp_path / "btad.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "results.json").exists()
    first = (tmp_path / "btad.json").stat().st_mtime_ns
    assert main(["benchmark", *options(data_root, tmp_path)]) == 0
    assert "btad: kept from" in capsys.readouterr().err
    assert (tmp_path / "btad.json").stat().st_mtime_ns == first
    # another process may add in another order
    assert_same_figures(figures(tmp_path), figures(finished), within=1e-9)
