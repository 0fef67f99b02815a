"""Streaming metrics of anomaly detection, in numpy alone; AUPRO also needs scipy."""

from .distributed import merge_across_processes
from .image import ImageMetrics
from .pixel import PixelMetrics


__all__ = ["ImageMetrics", "PixelMetrics", "merge_across_processes"]
