"""A procedural benchmark for zero-shot anomaly detection: drawn textures and objects with exactly masked defects."""

from .categories import TEST_CATEGORIES, TRAIN_CATEGORIES, Category
from .drawing import draw_sample
from .writing import write_benchmark


__all__ = ["TEST_CATEGORIES", "TRAIN_CATEGORIES", "Category", "draw_sample", "write_benchmark"]
