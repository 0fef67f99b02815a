"""Measures the streaming metrics on synthetic anomaly maps: memory and time at full scale, accuracy, and speed.

    python examples/benchmark_metrics.py               # 4,000 images of 518 x 518: memory stays flat
    python examples/benchmark_metrics.py --accuracy    # error against exact metrics for scores of many shapes
    python examples/benchmark_metrics.py --speed       # 50 million pixels, against scikit-learn

`--accuracy` and `--speed` need scikit-learn. No model runs here: the figures are those of the metrics alone.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from moeclip_hf.evaluation import BenchmarkProtocol
from moeclip_hf.metrics import PixelMetrics
from moeclip_hf.timing import StageTimer


# Raw scores from standard normal ones; the anomalous ones' mean is shifted before.
SHAPES = {
    "normal": lambda z: z,
    "1000 +- 2": lambda z: 1000 + np.clip(z, -4, 4) / 2,
    "saturated": lambda z: 1 / (1 + np.exp(-6 * z)),
    "ties, 40 levels": lambda z: np.round(4 * z),
    "log-normal, sigma 4": lambda z: np.exp(4 * z),
    "log-normal + 1000": lambda z: 1000 + np.exp(2 * z),
    "Student t, 2 degrees": lambda z: _from_uniform(z, lambda p: (2 * p - 1) * np.sqrt(2 / (4 * p * (1 - p)))),
    "Cauchy": lambda z: _from_uniform(z, lambda p: np.tan(np.pi * (p - 0.5))),
    "Cauchy + 1000": lambda z: 1000 + _from_uniform(z, lambda p: np.tan(np.pi * (p - 0.5))),
}


def main() -> None:
    """Runs the measurement that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accuracy", action="store_true", help="print the errors against exact metrics")
    parser.add_argument("--speed", action="store_true", help="print the time beside scikit-learn's")
    parser.add_argument("--num-images", type=int, help="default: 4000; 16 for --accuracy, 187 for --speed")
    parser.add_argument("--size", type=int, default=518, help="height and width (default: 518)")
    parser.add_argument(
        "--num-classes", type=int, default=1, help="object classes, each with its own metrics (default: 1)"
    )
    args = parser.parse_args()
    if args.accuracy:
        measure_accuracy(args.num_images or 16, args.size)
    elif args.speed:
        measure_speed(args.num_images or 187, args.size)
    else:
        measure_scale(args.num_images or 4000, args.size, args.num_classes)


def draw_maps(rng: np.random.Generator, num_images: int, size: int, share: float = 0.03, gap: float = 1.5):
    """Draws maps of independent standard normal scores and masks with one defect, on every second image.

    Args:
        rng (`np.random.Generator`): Source of the scores.
        num_images (`int`): Number of images.
        size (`int`): Height and width.
        share (`float`, *optional*, defaults to 0.03): Share of the pixels of an anomalous image that are anomalous.
        gap (`float`, *optional*, defaults to 1.5): By how much anomalous pixels score higher in the mean.

    Returns:
        `tuple(np.ndarray, np.ndarray)`: float32 maps and bool masks of shape `(num_images, size, size)`.
    """
    maps = rng.standard_normal((num_images, size, size), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    side = max(1, round(size * share**0.5))
    for index in range(1, num_images, 2):
        row, column = rng.integers(0, size - side + 1, 2)
        masks[index, row : row + side, column : column + side] = True
    maps[masks] += np.float32(gap)
    return maps, masks


def measure_scale(num_images: int, size: int, num_classes: int) -> None:
    """Evaluates many images under the benchmark protocol and prints memory and time.

    Args:
        num_images (`int`): Number of images.
        size (`int`): Height and width.
        num_classes (`int`): Number of object classes, which follow each other as in a data set.
    """
    rng, timer, protocol, batch_size = np.random.default_rng(0), StageTimer(), BenchmarkProtocol(), 8
    at_start = resident_memory()
    print(f"{num_images} images, {num_images * size**2 / 1e6:.0f} M pixels, {num_classes} classes", flush=True)
    for start in range(0, num_images, batch_size):
        count = min(batch_size, num_images - start)
        with timer("drawing"):
            maps, masks = draw_maps(rng, count, size)
            scores, labels = rng.uniform(size=count), masks.any(axis=(1, 2))
        with timer("metrics, update"):
            names = [f"class {(start + index) * num_classes // num_images}" for index in range(count)]
            protocol.update(names, maps, scores, labels, masks)
        if (start + count) * 10 // num_images > start * 10 // num_images:
            print(
                f"{start + count:6d} images: {(resident_memory() - at_start) / 1e6:6.0f} MB beyond the start",
                flush=True,
            )
    with timer("metrics, compute"):
        results = protocol.compute()
    for stage, seconds in timer.rounded().items():
        print(f"{stage:20s}{seconds:8.1f} s")
    print(f"peak memory {(peak_memory() - at_start) / 1e6:.0f} MB beyond the {at_start / 1e6:.0f} MB at the start")
    print({metric: round(value, 6) for metric, value in results["mean"].items()})


def measure_accuracy(num_images: int, size: int) -> None:
    """Prints for each shape of scores how far the metrics are from the exact ones.

    Args:
        num_images (`int`): Number of images.
        size (`int`): Height and width.
    """
    num_pixels = num_images * size**2
    print(f"{num_pixels / 1e6:.1f} M float32 scores, absolute error against exact metrics")
    print(f"{'scores':24s}{'anomalous':>10s}{'AUROC':>10s}{'AP':>10s}{'F1-max':>10s}{'AUPRO':>10s}")
    for name, shape in SHAPES.items():
        for share in (0.03, 1e-4):
            maps, masks = draw_maps(np.random.default_rng(1), num_images, size, share)
            maps = shape(maps.astype(np.float64)).astype(np.float32)
            found = stream(maps, masks)
            expected = exact_metrics(maps, masks)
            errors = [abs(found[metric] - expected[metric]) for metric in expected]
            print(f"{name:24s}{masks.sum():10d}" + "".join(f"{error:10.1e}" for error in errors), flush=True)


def measure_speed(num_images: int, size: int) -> None:
    """Prints the time of the streaming metrics and of scikit-learn's.

    Args:
        num_images (`int`): Number of images.
        size (`int`): Height and width.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    maps, masks = draw_maps(np.random.default_rng(0), num_images, size)
    print(f"{maps.size / 1e6:.1f} M pixels")
    seconds = {}
    for name, run in (
        ("AUROC, AP, F1-max", lambda: stream(maps, masks, aupro=False)),
        ("and AUPRO", lambda: stream(maps, masks)),
        ("scikit-learn AUROC", lambda: roc_auc_score(masks.ravel(), maps.ravel())),
        ("scikit-learn AP", lambda: average_precision_score(masks.ravel(), maps.ravel())),
    ):
        started = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - started
        print(f"{name:20s}{seconds[name]:8.2f} s", flush=True)
    theirs = seconds["scikit-learn AUROC"] + seconds["scikit-learn AP"]
    for name in ("AUROC, AP, F1-max", "and AUPRO"):
        print(f"{name:20s}{theirs / seconds[name]:8.1f} x faster than scikit-learn's AUROC and AP together")


def stream(maps: np.ndarray, masks: np.ndarray, aupro: bool = True, batch_size: int = 4) -> dict[str, float]:
    """Gives the maps to the streaming metrics batch by batch.

    Args:
        maps (`np.ndarray` of shape `(num_images, height, width)`): Scores.
        masks (`np.ndarray` of shape `(num_images, height, width)`): Bool masks.
        aupro (`bool`, *optional*, defaults to `True`): Whether to compute AUPRO, too.
        batch_size (`int`, *optional*, defaults to 4): Images of one update.

    Returns:
        `dict[str, float]`: The metrics.
    """
    metrics = PixelMetrics(aupro=aupro)
    for start in range(0, len(maps), batch_size):
        metrics.update(maps[start : start + batch_size], masks[start : start + batch_size])
    return metrics.compute()


def exact_metrics(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Computes the metrics from all scores at once, AUROC, AP and F1-max by scikit-learn.

    Args:
        maps (`np.ndarray` of shape `(num_images, height, width)`): Scores.
        masks (`np.ndarray` of shape `(num_images, height, width)`): Bool masks.

    Returns:
        `dict[str, float]`: The metrics.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, truth = maps.ravel(), masks.ravel()
    precision, recall, _ = precision_recall_curve(truth, scores)
    every_score = PixelMetrics(capacity=None)
    every_score.update(maps, masks)
    return {
        "pixel_auroc": roc_auc_score(truth, scores),
        "pixel_ap": average_precision_score(truth, scores),
        "pixel_f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30)),
        "pixel_aupro": every_score.compute()["pixel_aupro"],
    }


def resident_memory() -> int:
    """Reads the memory that this process holds now.

    Returns:
        `int`: Bytes.
    """
    return _read_status("VmRSS")


def peak_memory() -> int:
    """Reads the most memory that this process has held.

    Returns:
        `int`: Bytes.
    """
    return _read_status("VmHWM")


def _read_status(key: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        raise SystemExit("error: memory is read from /proc, which only Linux has.")
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def _from_uniform(scores: np.ndarray, quantile) -> np.ndarray:
    """Turns normal scores into those of another distribution, in the same order; the tails end at 1e-7."""
    probability = 1 / (1 + np.exp(-1.702 * scores))
    return quantile(np.clip(probability, 1e-7, 1 - 1e-7))


if __name__ == "__main__":
    main()
