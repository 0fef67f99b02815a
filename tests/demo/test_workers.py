"""Processes that draw pictures end with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
NUMBERS = "seed=0, size=48, patch_size=8, total=10**6, first=1, growth=1, shard_size=1"
STARTS = {
    "pretraining": "from moeclip_hf.demo.pretraining.shards import SamplePool as start; import time\n"
    f"pool = start(folder, {NUMBERS}); time.sleep(600)",
    "patterns": "from moeclip_hf.demo.patterns import write_patterns\n"
    "write_patterns(folder, count=10**5, size=48, seed=0, num_workers=1)",
    "benchmark": "from moeclip_hf.demo.benchmark import write_benchmark\n"
    "write_benchmark(folder, counts=dict.fromkeys(('train', 'test'), (10**5, 1)), num_workers=1)",
}


@pytest.mark.parametrize("start", STARTS)
def test_drawing_ends_when_its_parent_is_killed(tmp_path, start):
    code = f"from pathlib import Path; folder = Path({str(tmp_path)!r})\n{STARTS[start]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    while not any(path.is_file() for path in tmp_path.rglob("*")):
        assert parent.poll() is None
        time.sleep(0.1)
    parent.terminate()
    try:
        parent.communicate(timeout=30)  # all of them have the pipe, which closes with the last
    except subprocess.TimeoutExpired:
        os.killpg(parent.pid, signal.SIGKILL)
        pytest.fail("a process lives on")
