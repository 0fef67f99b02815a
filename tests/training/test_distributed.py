"""Two processes on the CPU (gloo), against one process with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .worker import compute_as_one


TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [*command, "-m", "training.worker", str(folder), "several"],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


def test_two_processes_with_half_the_batch_do_what_one_does(two_processes, tmp_path):
    one = compute_as_one(tmp_path / "run", num_processes=1)
    two = torch.load(two_processes / "result.pt", weights_only=True)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    for name, values in one["logs"].items():
        assert values, name
        assert two["logs"][name] == pytest.approx(values, rel=1e-5, abs=1e-6), name
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_two_processes_evaluate_each_image_once(two_processes, tmp_path):
    two = torch.load(two_processes / "result.pt", weights_only=True)
    assert two["labels"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert two["scores"].shape == (7,)


def test_two_processes_resume_exactly_in_the_middle_of_an_epoch(two_processes):
    losses = json.loads((two_processes / "losses.json").read_text())
    assert len(losses["whole"]) == 7
    assert losses["resumed"] == losses["whole"]
    assert losses["epoch"] == 2  # the augmentation's, of steps 7 to 9
