"""Finds defects with the packaged model where only the core requirements are installed.

A script, not a test: it is started by another interpreter, outside the checkout, with nothing but the wheel and what
the wheel requires.
"""

import importlib.util
import sys
from pathlib import Path

import torch

import moeclip_hf
from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.demo import DEMO_MODEL
from moeclip_hf.demo.benchmark import TEST_CATEGORIES, draw_sample


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
    found = 0
    for category in TEST_CATEGORIES:
        image, mask = draw_sample(category, 1, 0, category.defects[0])
        inputs = processor(images=image, object_names=category.name.replace("_", " "), masks=mask)
        is_defect = inputs.pop("mask_labels")[0] == 1
        with torch.no_grad():
            outputs = model(**inputs)
        (result,) = processor.post_process_anomaly_detection(outputs, target_sizes=[is_defect.shape])
        anomaly_map = result["anomaly_map"]
        if not bool(torch.isfinite(anomaly_map).all()) or not 0 <= result["score"] <= 1:
            raise SystemExit(f"{category.name}: the map or the score {result['score']} is out of range.")
        found += bool(anomaly_map[is_defect].mean() > anomaly_map[~is_defect].mean())
    sys.stdout.write(f"defects found on {found} of {len(TEST_CATEGORIES)} objects\n")
    if found <= len(TEST_CATEGORIES) / 2:
        raise SystemExit("The packaged model finds no more than chance would.")


if __name__ == "__main__":
    main()
