"""Checks on what the metrics are given."""

import numpy as np
import torch


def as_scores(name: str, values: torch.Tensor | np.ndarray, num_dims: int) -> np.ndarray:
    """Brings scores to floating point numpy and refuses those without an order.

    Args:
        name (`str`): the argument's name, for errors.
        values (`torch.Tensor` or `np.ndarray`): scores on any device.
        num_dims (`int`): number of dimensions they must have.

    Returns:
        `np.ndarray` of the same shape, float32 or float64.

    Raises:
        ValueError: if the number of dimensions differs or a score is NaN.
    """
    scores = _to_numpy(values)
    if scores.ndim != num_dims:
        raise ValueError(f"`{name}` must have {num_dims} dimensions, but got shape {scores.shape}.")
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"`{name}` contains NaN, which has no place in a ranking: find out where it comes from.")
    return scores


def as_truth(name: str, values: torch.Tensor | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Brings labels or masks to bool.

    Args:
        name (`str`): the argument's name, for errors.
        values (`torch.Tensor` or `np.ndarray`): bool or 0 / 1, true where anomalous.
        shape (`tuple[int, ...]`): the shape of the scores they belong to.

    Returns:
        `np.ndarray` of shape `shape` and dtype bool.

    Raises:
        ValueError: if the shape differs or another number than 0 and 1 occurs.
    """
    truth = _to_numpy(values)
    if truth.shape != shape:
        raise ValueError(f"`{name}` has shape {truth.shape}, but the scores have {shape}: they must be equal.")
    if truth.dtype == bool:
        return truth
    others = truth[(truth != 0) & (truth != 1)]
    if others.size:
        raise ValueError(f"`{name}` must be bool or 0 and 1, but contains {others[0]}: pass e.g. `{name} != 0`.")
    return truth.astype(bool)


def _to_numpy(values: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)
