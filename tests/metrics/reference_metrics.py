"""The metrics as scikit-learn and scipy have them, and the slowest obvious AUPRO."""

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def ranking_metrics(prefix, scores, truth):
    scores, truth = np.ravel(scores).astype(np.float64), np.ravel(truth)
    precision, recall, _ = precision_recall_curve(truth, scores)
    return {
        f"{prefix}_auroc": roc_auc_score(truth, scores),
        f"{prefix}_ap": average_precision_score(truth, scores),
        f"{prefix}_f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30)),
    }


def aupro(maps, masks, max_fpr=0.3):
    """Counts every region's pixels at every threshold, one by one."""
    regions = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        labelled, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions.extend(anomaly_map[labelled == index] for index in range(1, number + 1))
    normal = maps[~masks]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        points.append((np.mean(normal >= threshold), np.mean([np.mean(region >= threshold) for region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1, x1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0), max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


def pixel_metrics(maps, masks):
    return ranking_metrics("pixel", maps, masks) | {"pixel_aupro": aupro(maps, masks)}
