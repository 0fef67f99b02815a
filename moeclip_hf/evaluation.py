"""The paper's benchmark protocol, a model's results under it, and the results file.

Results have one form everywhere: `{"mean": {metric: value}, "classes": {name: {metric: value}}, "meta": {...}}` with the
four metrics `image_auroc`, `image_ap`, `pixel_auroc`, `pixel_ap` in [0, 1]. An undefined metric is NaN, null in a file,
and `meta["reasons"]` says why.
"""

import datetime
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from .data.benchmarks import DOMAINS
from .image_processing_moeclip import IGNORE_INDEX
from .json_file import write_json
from .metrics import ImageMetrics, PixelMetrics, merge_across_processes
from .metrics.inputs import as_scores, as_truth
from .processing_moeclip import resize_anomaly_map, smooth_anomaly_logits
from .provenance import get_commit, get_versions
from .timing import StageTimer


TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
}
METRICS = tuple(TITLES)


@dataclass
class _ClassScores:
    """What the protocol keeps of one object class: a few numbers an image, and the pixels' histograms."""

    lowest: float = math.inf
    highest: float = -math.inf
    map_maxima: list[float] = field(default_factory=list)
    image_scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    num_masks: int = 0
    num_masks_missing: int = 0
    num_masks_empty: int = 0
    has_anomalous_pixels: bool = False
    pixels: PixelMetrics = field(default_factory=lambda: PixelMetrics(aupro=False))

    def merge(self, other: "_ClassScores") -> None:
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        self.map_maxima.extend(other.map_maxima)
        self.image_scores.extend(other.image_scores)
        self.labels.extend(other.labels)
        self.num_masks += other.num_masks
        self.num_masks_missing += other.num_masks_missing
        self.num_masks_empty += other.num_masks_empty
        self.has_anomalous_pixels |= other.has_anomalous_pixels
        self.pixels.merge(other.pixels)


class BenchmarkProtocol:
    r"""Collects maps and scores of a test set and computes the paper's four metrics per object class and their mean.

    Per class, over its whole test set: maps that leave [0, 1] are min-max normalised, image scores likewise; an image's
    final score is 0.5 max(map) + 0.5 score for industrial data and max(map) alone for medical data. Normalisation does
    not change a class's ranking of pixels, so it needs no more than each map's maximum and is exact although no map is
    kept. It sees the whole test set: a protocol to compare methods by, not something for one picture in production.

    Args:
        smoothing (`str`, *optional*, defaults to `"industrial"`):
            The domain, `"industrial"` or `"medical"`, by whose kernel the maps were smoothed; it chooses the fusion.

    Raises:
        ValueError: if `smoothing` is neither of the two.
    """

    def __init__(self, smoothing: str = "industrial"):
        if smoothing not in DOMAINS:
            raise ValueError(f"`smoothing` must be 'industrial' or 'medical' in the protocol, but got {smoothing!r}.")
        self.smoothing = smoothing
        self._classes: dict[str, _ClassScores] = {}

    def update(
        self,
        class_names: Sequence[str],
        anomaly_maps: torch.Tensor | np.ndarray,
        image_scores: torch.Tensor | np.ndarray,
        labels: torch.Tensor | np.ndarray,
        masks: torch.Tensor | np.ndarray,
    ) -> None:
        """Adds a batch of images, of any mixture of classes.

        Args:
            class_names (`Sequence[str]`): class of each image, under which it is reported.
            anomaly_maps (`torch.Tensor` or `np.ndarray` of shape `(batch_size, height, width)`):
                Smoothed maps at the model's input size, in any unit.
            image_scores (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): scores of the image head.
            labels (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): nonzero for anomalous images.
            masks (`torch.Tensor` or `np.ndarray` of shape `(batch_size, height, width)`):
                Nonzero for anomalous pixels. -100 throughout: the mask is unknown and the image's pixels do not count.

        Raises:
            ValueError: if shapes do not match or a map or score is NaN.
        """
        maps = as_scores("anomaly_maps", anomaly_maps, num_dims=3)
        scores = as_scores("image_scores", image_scores, num_dims=1)
        masks, labels = np.asarray(torch.as_tensor(masks).cpu()), np.asarray(torch.as_tensor(labels).cpu())
        unknown = (masks == IGNORE_INDEX).all(axis=(1, 2)) if masks.ndim == 3 else np.zeros(len(masks), dtype=bool)
        masks, labels = as_truth("masks", masks != 0, maps.shape), as_truth("labels", labels != 0, scores.shape)
        if not len(class_names) == len(maps) == len(scores):
            raise ValueError(
                f"`class_names` ({len(class_names)}), `anomaly_maps` ({len(maps)}) and `image_scores` ({len(scores)}) "
                "must have one entry for each image."
            )
        for name in dict.fromkeys(class_names):
            rows = np.array([other == name for other in class_names])
            kept = self._classes.setdefault(name, _ClassScores())
            kept.lowest = min(kept.lowest, float(maps[rows].min()))
            kept.highest = max(kept.highest, float(maps[rows].max()))
            kept.map_maxima.extend(maps[rows].max(axis=(1, 2)).tolist())
            kept.image_scores.extend(scores[rows].tolist())
            kept.labels.extend(labels[rows].tolist())
            known = rows & ~unknown
            kept.num_masks += int(known.sum())
            kept.num_masks_missing += int((rows & unknown & labels).sum())
            kept.num_masks_empty += int((known & labels & ~masks.any(axis=(1, 2))).sum())
            kept.has_anomalous_pixels |= bool(masks[known].any())
            kept.pixels.update(maps[known], masks[known])

    def merge(self, other: "BenchmarkProtocol") -> None:
        """Adds all that another protocol has seen, e.g. on another process; the other stays as it is.

        Args:
            other ([`BenchmarkProtocol`]): a protocol of other images, of the same or of other classes.

        Raises:
            ValueError: if the other's smoothing is not this one's.
        """
        if self.smoothing != other.smoothing:
            raise ValueError(
                f"cannot merge protocols of `smoothing` {self.smoothing!r} and {other.smoothing!r}: they must be equal."
            )
        for name, scores in other._classes.items():
            self._classes.setdefault(name, _ClassScores()).merge(scores)

    def compute(self) -> dict:
        """Computes the metrics over all images so far.

        Returns:
            `dict`: results in the form that this module's head describes. `mean` is over the classes where a metric is
            defined; `meta` holds the smoothing, the counts of images and the reasons of undefined metrics.

        Raises:
            ValueError: if there was no image.
        """
        if not self._classes:
            raise ValueError("The protocol has seen no image: call `update` first.")
        classes = {name: self._compute_class(kept) for name, kept in self._classes.items()}
        mean = {metric: average_defined([values[metric] for values in classes.values()]) for metric in METRICS}
        reasons = {name: _reasons(self._classes[name], values) for name, values in classes.items()}
        kept = self._classes.values()
        return {
            "mean": mean,
            "classes": classes,
            "meta": {
                "smoothing": self.smoothing,
                "num_images": sum(len(scores.labels) for scores in kept),
                "num_anomalous": sum(sum(scores.labels) for scores in kept),
                "num_anomalous_without_mask": sum(scores.num_masks_missing for scores in kept),
                "num_anomalous_with_empty_mask": sum(scores.num_masks_empty for scores in kept),
                "reasons": {
                    "mean": {metric: "undefined for every class" for metric in METRICS if math.isnan(mean[metric])},
                    "classes": {name: found for name, found in reasons.items() if found},
                },
            },
        }

    def final_scores(self) -> dict[str, np.ndarray]:
        """Gives the scores by which the images are ranked. They change with every further image of a class.

        Returns:
            `dict[str, np.ndarray]`: of each class one score an image, in the order in which they came.
        """
        return {name: self._final_scores(kept) for name, kept in self._classes.items()}

    def _final_scores(self, kept: _ClassScores) -> np.ndarray:
        maxima = _normalize(np.array(kept.map_maxima), kept.lowest, kept.highest)
        if self.smoothing == "medical":
            return maxima
        scores = np.array(kept.image_scores)
        return 0.5 * maxima + 0.5 * _normalize(scores, scores.min(), scores.max())

    def _compute_class(self, kept: _ClassScores) -> dict[str, float]:
        images = ImageMetrics()
        images.update(self._final_scores(kept), np.array(kept.labels))
        metrics = images.compute() | kept.pixels.compute()
        return {metric: metrics[metric] for metric in METRICS}


def evaluate_model(
    model,
    processor,
    dataset,
    *,
    smoothing: str = "industrial",
    mask_threshold: int = 0,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
) -> dict:
    """Evaluates a model under the benchmark protocol, at the model's input size, on the device where it is.

    On several processes (`accelerate launch`, `torchrun`) each takes a part of the batches, none of them twice, and all
    get the results of the whole.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): the model; its mode (training or evaluation) is the same afterwards.
        processor ([`MoECLIPProcessor`]): the model's processor.
        dataset (`datasets.Dataset`): images with labels and masks, from [`~data.load_anomaly_dataset`].
        smoothing (`str`, *optional*, defaults to `"industrial"`):
            The domain, `"industrial"` or `"medical"`: the kernel that smooths the maps, and the fusion of the scores.
        mask_threshold (`int`, *optional*, defaults to 0): a pixel is anomalous if its mask is greater.
        batch_size (`int`, *optional*, defaults to 8): images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): processes that decode images beside this one.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar on stderr.

    Returns:
        `dict`: results in the form that this module's head describes; see [`BenchmarkProtocol.compute`].

    Raises:
        ValueError: if an argument is out of range, an image cannot be read or the model returns NaN.
    """
    from .data import AnomalyDetectionDataset

    timer = StageTimer()
    protocol = BenchmarkProtocol(smoothing)
    samples = AnomalyDetectionDataset(dataset, processor.image_processor, mask_threshold=mask_threshold)
    rank, num_processes = _find_process()
    part = _own_part(len(samples), batch_size, rank, num_processes)
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            tqdm(total=len(part), unit="image", desc="evaluating", disable=not progress or rank > 0) as bar,
        ):
            with timer("model"):
                text_embeds = _embed_objects(model, processor, samples.object_names)
            loader = iter(_make_loader(samples, part, batch_size, num_workers))
            for start in range(part.start, part.stop, batch_size):
                with timer("loading"):
                    batch = next(loader)
                with timer("model"):
                    predicted = _predict(model, batch, text_embeds, smoothing)
                with timer("metrics"):
                    protocol.update(samples.class_names[start : start + len(predicted[0])], *predicted)
                bar.update(len(predicted[0]))
    finally:
        model.train(was_training)
    with timer("metrics"):
        results = merge_across_processes(protocol).compute()
    results["meta"] = {
        "model": model.name_or_path,
        "image_size": model.config.vision_config.image_size,
        "mask_threshold": mask_threshold,
        **results["meta"],
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "num_processes": num_processes,
        "versions": get_versions(),
        "commit": get_commit(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(timer.total(), 1),
        "stage_seconds": timer.rounded(),
    }
    return results


def average_defined(values: Sequence[float | None]) -> float:
    """Averages the values that are defined.

    Args:
        values (`Sequence[float | None]`): numbers, with NaN or None where undefined.

    Returns:
        `float`: their mean, NaN if none is defined.
    """
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def summarize_reasons(results: dict) -> dict[str, str]:
    """Says for each metric that is undefined for every class why, in the words of the classes.

    Args:
        results (`dict`): results in the form that this module's head describes.

    Returns:
        `dict[str, str]`: by metric; each different reason once.
    """
    reasons = results["meta"]["reasons"]
    return {
        metric: ", ".join(dict.fromkeys(found[metric] for found in reasons["classes"].values() if metric in found))
        for metric in reasons["mean"]
    }


def group_by_reason(reasons: dict[str, str]) -> dict[str, list[str]]:
    """Brings the metrics together that are undefined for the same reason.

    Args:
        reasons (`dict[str, str]`): by metric.

    Returns:
        `dict[str, list[str]]`: for each reason its metrics.
    """
    by_reason: dict[str, list[str]] = {}
    for metric, reason in reasons.items():
        by_reason.setdefault(reason, []).append(metric)
    return by_reason


def write_results(results: dict, path: str | os.PathLike) -> None:
    """Writes results as JSON, whole or not at all; NaN becomes null.

    Args:
        results (`dict`): results in the form that this module's head describes.
        path (`str` or `os.PathLike`): the file; missing folders are made.

    Raises:
        OSError: if the file cannot be written.
    """
    write_json(path, _nan_to_none(results))


def format_results(results: dict, title: str = "object") -> str:
    """Lays results out as a table in percent, one line a class and one for the mean, with notes under it.

    Args:
        results (`dict`): results in the form that this module's head describes, with NaN or None where undefined.
        title (`str`, *optional*, defaults to `"object"`): head of the first column.

    Returns:
        `str`: lines of plain text; "-" stands for an undefined metric.
    """
    width = max(len(title), *(len(name) for name in results["classes"]))

    def line(name: str, values: dict) -> str:
        cells = [_percent(values[metric]).rjust(len(column)) for metric, column in TITLES.items()]
        return "  ".join([name.ljust(width), *cells])

    head = "  ".join([title.ljust(width), *TITLES.values()])
    rule = "-" * len(head)
    rows = [line(name, values) for name, values in results["classes"].items()]
    return "\n".join([head, rule, *rows, rule, line("mean", results["mean"]), *_notes(results)])


def _find_process() -> tuple[int, int]:
    """Gives this process's rank and the number of processes."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _own_part(num_samples: int, batch_size: int, rank: int, num_processes: int) -> range:
    """Gives the samples of one process: whole batches in a row, so that all together are those of a single process."""
    num_batches = math.ceil(num_samples / batch_size)
    first, last = (num_batches * number // num_processes for number in (rank, rank + 1))
    return range(min(first * batch_size, num_samples), min(last * batch_size, num_samples))


def _make_loader(samples, part: range, batch_size: int, num_workers: int) -> DataLoader:
    from .data import collate_anomaly_samples

    subset = Subset(samples, part)
    return DataLoader(subset, batch_size, num_workers=num_workers, collate_fn=collate_anomaly_samples)


def _embed_objects(model, processor, object_names: list[str]) -> torch.Tensor:
    """Embeds each object's texts once, object by object, (num_objects, 2, projection_dim)."""
    text_embeds = []
    for name in object_names:
        inputs = processor(object_names=name, return_tensors="pt").to(model.device)
        prompt_embeds = model.get_prompt_embeds(inputs["input_ids"], inputs["attention_mask"])
        text_embeds.append(model.get_text_embeds(prompt_embeds, inputs["prompt_state"]))
    return torch.cat(text_embeds)


def _predict(model, batch: dict, text_embeds: torch.Tensor, smoothing: str) -> tuple[torch.Tensor, ...]:
    """Gives maps at the masks' size, image scores, labels and masks of a batch."""
    outputs = model(
        batch["pixel_values"].to(model.device, model.dtype),
        text_embeds=text_embeds,
        object_ids=batch["object_ids"].to(model.device),
    )
    maps = smooth_anomaly_logits(outputs.anomaly_logits, smoothing)
    maps = resize_anomaly_map(maps, tuple(batch["mask_labels"].shape[-2:]))
    # Brought over here, so that the device's work counts as the model's time.
    return maps.cpu(), outputs.image_score.cpu(), batch["labels"], batch["mask_labels"]


def _normalize(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Maps [lowest, highest] to [0, 1] if it leaves [0, 1]; equal bounds carry no information and give 0."""
    if lowest >= 0 and highest <= 1:
        return values
    return (values - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(values)


def _reasons(kept: _ClassScores, values: dict[str, float]) -> dict[str, str]:
    """Says for each undefined metric of a class what the class's test set lacks."""
    num_anomalous = sum(kept.labels)
    image_reason = "no normal image" if num_anomalous else "no anomalous image"
    if not kept.num_masks:
        pixel_reason = "no masks"
    elif kept.has_anomalous_pixels:
        pixel_reason = "no normal pixel"
    elif num_anomalous == kept.num_masks_missing:
        pixel_reason = "no anomalous image with a mask" if num_anomalous else "no anomalous image"
    else:
        pixel_reason = "every mask is empty"
    reasons = {"image": image_reason, "pixel": pixel_reason}
    return {metric: reasons[metric.partition("_")[0]] for metric in METRICS if math.isnan(values[metric])}


def _notes(results: dict) -> list[str]:
    """One line under the table for each set of undefined metrics."""
    found = results.get("meta", {}).get("reasons", {}).get("classes", {})
    notes = []
    for name, reasons in found.items():
        for reason, metrics in group_by_reason(reasons).items():
            notes.append(f"-  {name}: {' and '.join(TITLES[metric] for metric in metrics)} undefined, {reason}")
    return notes


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _nan_to_none(value):
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
