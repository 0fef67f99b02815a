"""Metrics of two real processes, merged, are those of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moeclip_hf.evaluation import BenchmarkProtocol
from moeclip_hf.metrics import ImageMetrics, PixelMetrics, merge_across_processes


ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from accelerate import PartialState
from test_distributed import collect
from moeclip_hf.metrics import merge_across_processes

state = PartialState(cpu=True)
assert state.num_processes == 2
found = [merge_across_processes(part).compute() for part in collect(state.process_index, 2)]
with open(f"{sys.argv[1]}/{state.process_index}.json", "w") as file:
    json.dump(found, file)
state.destroy_process_group()
"""


def collect(rank, num_processes):
    """Metrics of every so many images; more pixels than distinct scores are kept apart."""
    rng = np.random.default_rng(0)
    masks = np.zeros((24, 60, 60), dtype=bool)
    masks[::2, 10:20, 15:30] = True
    maps, labels, scores = rng.normal(size=masks.shape) + masks, masks.any(axis=(1, 2)), rng.normal(size=24)
    pixels, images, protocol = PixelMetrics(capacity=2**13), ImageMetrics(), BenchmarkProtocol()
    for index in range(rank * 24 // num_processes, (rank + 1) * 24 // num_processes):
        one = slice(index, index + 1)
        pixels.update(maps[one], masks[one])
        images.update(scores[one], labels[one])
        protocol.update(["nut" if index < 8 else "bolt"], maps[one], scores[one], labels[one], masks[one])
    return pixels, images, protocol


def test_two_processes_have_the_results_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port),
         str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    pixels, images, protocol = (part.compute() for part in collect(0, 1))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found[0] == pytest.approx(pixels, abs=1e-6)
        assert found[1] == images
        assert list(found[2]["classes"]) == ["nut", "bolt"]
        assert found[2]["mean"] == pytest.approx(protocol["mean"], abs=1e-6)
        assert found[2]["meta"] == protocol["meta"]


def test_a_single_process_keeps_its_own():
    metrics = ImageMetrics()
    assert merge_across_processes(metrics) is metrics
