"""Ranking metrics from the number of normal and anomalous samples at each score.

Every function takes counts at strictly ascending scores, one entry per distinct score, so samples of equal score always
share a threshold: ties count half in the ROC curve and are one step of the precision-recall curve, as in scikit-learn.
All are NaN unless both classes occur.
"""

import numpy as np


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Computes the area under the ROC curve: the share of (normal, anomalous) pairs in the right order, ties half.

    Args:
        normal (`np.ndarray` of shape `(num_scores,)`): number of normal samples at each score, lowest score first.
        anomalous (`np.ndarray` of shape `(num_scores,)`): number of anomalous samples at each score.

    Returns:
        `float`: the area in [0, 1], NaN unless both classes occur.
    """
    pairs = normal.sum() * anomalous.sum()
    if not pairs:
        return float("nan")
    lower_normals = np.cumsum(normal) - normal
    return float(np.dot(anomalous, lower_normals + normal / 2) / pairs)


def average_precision(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Computes the average precision, sum of (R_n - R_{n-1}) P_n over falling thresholds, without interpolation.

    Args:
        normal (`np.ndarray` of shape `(num_scores,)`): number of normal samples at each score, lowest score first.
        anomalous (`np.ndarray` of shape `(num_scores,)`): number of anomalous samples at each score.

    Returns:
        `float`: the average precision in [0, 1], NaN unless both classes occur.
    """
    if not normal.sum() or not anomalous.sum():
        return float("nan")
    true_positives, false_positives = _detected(anomalous), _detected(normal)
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    return float(np.dot(anomalous, precision) / anomalous.sum())


def f1_max(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Computes the highest F1 score over all thresholds.

    Args:
        normal (`np.ndarray` of shape `(num_scores,)`): number of normal samples at each score, lowest score first.
        anomalous (`np.ndarray` of shape `(num_scores,)`): number of anomalous samples at each score.

    Returns:
        `float`: the F1 score in [0, 1], NaN unless both classes occur.
    """
    if not normal.sum() or not anomalous.sum():
        return float("nan")
    true_positives, false_positives = _detected(anomalous), _detected(normal)
    return float(np.max(2 * true_positives / (true_positives + false_positives + anomalous.sum())))


def aupro(normal: np.ndarray, region_overlap: np.ndarray, max_fpr: float = 0.3) -> float:
    """Computes the area under the per-region overlap curve up to a false-positive rate, divided by that rate.

    The curve gives the share of a region's pixels at or above a threshold, mean over the regions, over the share of
    normal pixels at or above it. It is integrated by trapezoids from (0, 0) and interpolated at `max_fpr`.

    Args:
        normal (`np.ndarray` of shape `(num_scores,)`): number of normal pixels at each score, lowest score first.
        region_overlap (`np.ndarray` of shape `(num_scores,)`):
            Sum over the anomalous pixels at each score of 1 / (number of pixels of their region).
        max_fpr (`float`, *optional*, defaults to 0.3): false-positive rate where the integration ends.

    Returns:
        `float`: the normalised area in [0, 1], NaN unless there are normal pixels and regions.
    """
    if not normal.sum() or not region_overlap.sum():
        return float("nan")
    fpr = np.concatenate([[0.0], _detected(normal)[::-1] / normal.sum()])
    overlap = np.concatenate([[0.0], _detected(region_overlap)[::-1] / region_overlap.sum()])
    end = np.searchsorted(fpr, max_fpr, side="right")
    fpr_within = np.append(fpr[:end], max_fpr)
    overlap_within = np.append(overlap[:end], np.interp(max_fpr, fpr[end - 1 : end + 1], overlap[end - 1 : end + 1]))
    return float(np.trapezoid(overlap_within, fpr_within) / max_fpr)


def _detected(counts: np.ndarray) -> np.ndarray:
    """Sums the counts at or above each score."""
    return np.cumsum(counts[::-1])[::-1]
