"""Streaming metrics of anomaly detection, in numpy alone; AUPRO also needs scipy."""

from .image import ImageMetrics
from .pixel import PixelMetrics


__all__ = ["ImageMetrics", "PixelMetrics"]
