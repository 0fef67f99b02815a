"""Inspects pictures with transformers' pipeline: a score and a verdict each, and boxes around what looks wrong.

    python examples/pipeline.py --object "metal nut" --threshold 0.6 --mask-threshold -8 first.png https://.../second.png

Where the package is not installed, `pipeline(..., trust_remote_code=True)` loads the same from a model's repository.
"""

import argparse

from transformers import pipeline

import moeclip_hf  # noqa: F401 - makes the task known
from moeclip_hf.demo import DEMO_MODEL


def parse_options():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", help="files or addresses")
    parser.add_argument("--model", default=DEMO_MODEL, help="Hub id or folder (default: the packaged tiny model)")
    parser.add_argument("--object", default="object", help="what is on the pictures")
    parser.add_argument(
        "--domain", default="industrial", choices=["industrial", "medical"], help="smoothing of the map"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="a picture is anomalous from this score on")
    parser.add_argument(
        "--mask-threshold", type=float, default=0.0, help="so is a pixel from this value of the map on"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="pictures at once")
    return parser.parse_args()


def main():
    """Prints a line for each picture, and one for each region found on it."""
    options = parse_options()
    pipe = pipeline(
        "zero-shot-anomaly-detection",
        model=options.model,
        smoothing=options.domain,
        threshold=options.threshold,
        mask_threshold=options.mask_threshold,
    )
    results = pipe(options.pictures, object_name=options.object, batch_size=options.batch_size)
    for picture, result in zip(options.pictures, results, strict=True):
        height, width = result["anomaly_map"].shape
        verdict = "anomalous" if result["label"] else "normal"
        print(f"{picture} ({width} x {height}): {verdict}, score {result['score']:.3f}")
        for region in result["boxes"]:
            left, top, right, bottom = region["box"]
            print(f"  columns {left} to {right}, rows {top} to {bottom}: up to {region['score']:.2f}")


if __name__ == "__main__":
    main()
