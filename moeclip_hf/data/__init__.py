"""Own pictures and the paper's benchmarks as data sets, and the samples that training reads from them.

Names are imported on first use: the table of the benchmarks needs no other package, reading pictures needs `datasets`.
"""

import importlib
from typing import TYPE_CHECKING


_MODULE_OF_NAME = {
    "AffineAugmentation": "augmentation",
    "AnomalyDetectionDataset": "dataset",
    "BENCHMARKS": "benchmarks",
    "Benchmark": "benchmarks",
    "collate_anomaly_samples": "collator",
    "find_benchmark": "benchmarks",
    "get_benchmark": "benchmarks",
    "load_anomaly_dataset": "loading",
    "load_benchmark": "loading",
}

__all__ = [
    "BENCHMARKS",
    "AffineAugmentation",
    "AnomalyDetectionDataset",
    "Benchmark",
    "collate_anomaly_samples",
    "find_benchmark",
    "get_benchmark",
    "load_anomaly_dataset",
    "load_benchmark",
]

if TYPE_CHECKING:
    from .augmentation import AffineAugmentation
    from .benchmarks import BENCHMARKS, Benchmark, find_benchmark, get_benchmark
    from .collator import collate_anomaly_samples
    from .dataset import AnomalyDetectionDataset
    from .loading import load_anomaly_dataset, load_benchmark


def __getattr__(name: str):
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
