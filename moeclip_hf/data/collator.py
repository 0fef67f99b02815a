"""Samples to batches."""

import torch


def collate_anomaly_samples(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Stacks the samples of [`AnomalyDetectionDataset`].

    Args:
        samples (`list[dict]`):
            `batch_size` samples with the same keys, each value a number or a tensor of the same shape.

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values (batch_size, 3, height, width)`, `mask_labels (batch_size, height,
        width)`, and `labels` and `object_ids` of shape `(batch_size,)` and type int64.
    """
    return {key: torch.stack([torch.as_tensor(sample[key]) for sample in samples]) for key in samples[0]}
