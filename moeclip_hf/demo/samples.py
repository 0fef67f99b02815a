"""The demo's training pictures: prepared once, kept in memory, augmented anew in each epoch."""

from collections.abc import Callable

import torch
from torch.utils.data import Dataset

from ..data import AnomalyDetectionDataset


class CachedSamples(Dataset):
    """Keeps the samples of a small data set in memory, so that an epoch decodes nothing.

    Args:
        samples (`AnomalyDetectionDataset`): The samples, without an augmentation of their own.
        augmentation (`Callable`): `(pixel_values, mask_labels, epoch, index)` to the first two, changed.
    """

    def __init__(self, samples: AnomalyDetectionDataset, augmentation: Callable):
        self._samples = [samples[index] for index in range(len(samples))]
        self._augmentation = augmentation
        self._epoch = 0
        self.object_names = samples.object_names
        self.object_ids = samples.object_ids
        self.class_names = samples.class_names

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        """Returns a sample as `AnomalyDetectionDataset` does, augmented."""
        sample = self._samples[index]
        pixel_values, mask_labels = self._augmentation(
            sample["pixel_values"], sample["mask_labels"], self._epoch, index
        )
        return {**sample, "pixel_values": pixel_values, "mask_labels": mask_labels}

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the augmentation, counted from 0."""
        self._epoch = epoch
