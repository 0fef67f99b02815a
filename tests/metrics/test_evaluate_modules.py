"""The `evaluate` modules load from their folders, offline, and give the metrics' own figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import moeclip_hf.metrics


FOLDER = Path(moeclip_hf.metrics.__file__).parent / "evaluate_modules"
SCRIPT = """
import json, sys
import evaluate, numpy as np, torch
from moeclip_hf.metrics import ImageMetrics, PixelMetrics

folder = sys.argv[1]
pixels, images = (evaluate.load(f"{folder}/anomaly_{kind}") for kind in ("pixels", "images"))
rng = np.random.default_rng(0)
masks = rng.uniform(size=(6, 12, 10)) < 0.2
maps = rng.normal(size=masks.shape) + masks
expected = PixelMetrics()
expected.update(maps, masks)
pixels.add_batch(predictions=torch.from_numpy(maps[:3]), references=torch.from_numpy(masks[:3]))
pixels.add(prediction=maps[3], reference=masks[3])
found = pixels.compute(predictions=maps[4:], references=masks[4:])
result = {"pixels": [found, expected.compute()], "again": pixels.compute(predictions=maps, references=masks)}
scores, labels = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
expected = ImageMetrics()
expected.update(np.array(scores), np.array(labels))
both = evaluate.combine([images])
both.add_batch(predictions=scores, references=labels)
result["combined"] = both.compute()
result["images"] = [images.compute(predictions=scores, references=labels), expected.compute()]
try:
    images.add_batch(predictions=[float("nan")], references=[1])
except ValueError as error:
    result["error"] = str(error)
print(json.dumps(result))
"""


def test_modules_stream_and_start_anew_after_computing(tmp_path):
    environment = {
        **os.environ, "HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1", "PYTHONPATH": str(FOLDER.parents[2]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(FOLDER)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    found, expected = result["pixels"]
    assert list(found) == ["pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
    assert found == pytest.approx(expected, abs=1e-12)
    assert result["again"] == pytest.approx(expected, abs=1e-12)
    assert result["images"][0] == result["images"][1] == result["combined"]
    assert "contains NaN" in result["error"]
