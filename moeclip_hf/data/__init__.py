"""Own pictures as data sets: folders in MVTec layout, JSON-lines lists, and the samples that training reads from them."""

from .augmentation import AffineAugmentation
from .collator import collate_anomaly_samples
from .dataset import AnomalyDetectionDataset
from .loading import load_anomaly_dataset


__all__ = ["AffineAugmentation", "AnomalyDetectionDataset", "collate_anomaly_samples", "load_anomaly_dataset"]
