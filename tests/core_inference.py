"""Finds defects with the packaged model where only the core requirements are installed.

A script, not a test: it is started by another interpreter, outside the checkout, with nothing but the wheel and what
the wheel requires.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import moeclip_hf
from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.demo import DEMO_MODEL


OPTIONAL = ("datasets", "evaluate", "matplotlib", "pandas", "pytest", "scipy", "sklearn", "tensorboard")
NEED_EXTRAS = {"MoECLIPTrainer", "MoECLIPTrainingArguments"}


def main() -> None:
    present = [name for name in OPTIONAL if importlib.util.find_spec(name)]
    if present:
        raise SystemExit(f"This environment holds more than the core requirements: {present}.")
    if not Path(moeclip_hf.__file__).is_relative_to(sys.prefix):
        raise SystemExit(f"moeclip_hf comes from {moeclip_hf.__file__}, not from the installed wheel.")

    for name in set(moeclip_hf.__all__) - NEED_EXTRAS:
        getattr(moeclip_hf, name)

    model = MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL).eval()
    processor = MoECLIPProcessor.from_pretrained(DEMO_MODEL)
    pixels = np.random.default_rng(0).integers(90, 110, (96, 128, 3), dtype=np.uint8)
    pixels[40:56, 60:76] = (250, 20, 20)
    with torch.no_grad():
        outputs = model(**processor(images=Image.fromarray(pixels), object_names="grey plate"))
    (result,) = processor.post_process_anomaly_detection(outputs, target_sizes=[(96, 128)])
    anomaly_map = result["anomaly_map"]
    if tuple(anomaly_map.shape) != (96, 128) or not bool(torch.isfinite(anomaly_map).all()):
        raise SystemExit(f"The anomaly map is wrong: shape {tuple(anomaly_map.shape)}.")
    if not 0 <= float(result["score"]) <= 1:
        raise SystemExit(f"The score is wrong: {float(result['score'])}.")
    inside, outside = float(anomaly_map[44:52, 64:72].mean()), float(anomaly_map.mean())
    if inside <= outside:
        raise SystemExit(f"A red spot on a grey plate is not found: map {inside} on it, {outside} in the mean.")
    sys.stdout.write(f"map {tuple(anomaly_map.shape)}, score {float(result['score']):.3f}\n")


if __name__ == "__main__":
    main()
