"""Results, and predictions for single images, as a `datasets.Dataset`: to filter, plot, join and share."""

from collections.abc import Mapping

import datasets
import torch
from torch.utils.data import DataLoader

from .data import AnomalyDetectionDataset, collate_anomaly_samples
from .data.tables import LABEL_NAMES
from .evaluation import METRICS, BenchmarkProtocol, _embed_objects, _predict


def results_to_dataset(*results: Mapping) -> datasets.Dataset:
    """Turns results into rows, one for each class of each data set.

    Args:
        *results (`Mapping`): Results in the form of `moeclip_hf.evaluation`, each of one data set: as `evaluate_model`
            returns them or as they are read from a results file.

    Returns:
        `datasets.Dataset`: columns `benchmark` (the data set's key, or None), `data` (where it lay, or None),
        `class_name`, and the four metrics in [0, 1], None where undefined.

    Raises:
        ValueError: If there are no results, or a summary of several data sets.
    """
    if not results:
        raise ValueError("`results` is empty: pass at least one data set's results.")
    for found in results:
        if "benchmarks" in found["meta"]:
            names = ", ".join(f"{key}.json" for key in found["meta"]["benchmarks"])
            raise ValueError(f"`results` holds a summary of several data sets: pass what lies beside it, {names}.")
    rows = [
        {
            "benchmark": found["meta"].get("benchmark"),
            "data": found["meta"].get("data"),
            "class_name": name,
            **{metric: _defined(values.get(metric)) for metric in METRICS},
        }
        for found in results
        for name, values in found["classes"].items()
    ]
    text, number = datasets.Value("string"), datasets.Value("float64")
    features = {"benchmark": text, "data": text, "class_name": text} | dict.fromkeys(METRICS, number)
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


@torch.inference_mode()
def predict_dataset(
    model,
    processor,
    dataset: datasets.Dataset,
    *,
    smoothing: str = "industrial",
    batch_size: int = 8,
    with_maps: bool = False,
) -> datasets.Dataset:
    """Scores every image of a test set as the benchmark protocol does, one row an image, in the data set's order.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model; its mode (training or evaluation) is the same afterwards.
        processor ([`MoECLIPProcessor`]): The model's processor.
        dataset (`datasets.Dataset`): Images with labels, from [`~data.load_anomaly_dataset`].
        smoothing (`str`, *optional*, defaults to `"industrial"`): The domain, `"industrial"` or `"medical"`.
        batch_size (`int`, *optional*, defaults to 8): Images per forward pass.
        with_maps (`bool`, *optional*, defaults to `False`): Whether to keep the maps, some megabyte an image.

    Returns:
        `datasets.Dataset`: columns `class_name`, `object_name`, `label` (0 normal, 1 anomalous), `score` (the image
        head's, in [0, 1]), `map_max` (the highest value of the map), `final_score` (the protocol's, which sees the
        whole test set of the class) and, with `with_maps`, `anomaly_map` (smoothed, at the model's input size).

    Raises:
        ValueError: If an argument is out of range, an image cannot be read or the model returns NaN.
    """
    protocol = BenchmarkProtocol(smoothing)
    samples = AnomalyDetectionDataset(dataset, processor.image_processor)
    columns: dict[str, list] = {"label": [], "score": [], "map_max": []} | ({"anomaly_map": []} if with_maps else {})
    was_training = model.training
    model.eval()
    try:
        text_embeds = _embed_objects(model, processor, samples.object_names)
        for batch in DataLoader(samples, batch_size, collate_fn=collate_anomaly_samples):
            maps, scores, labels, masks = _predict(model, batch, text_embeds, smoothing)
            start = len(columns["label"])
            protocol.update(samples.class_names[start : start + len(labels)], maps, scores, labels, masks)
            columns["label"].extend(labels.tolist())
            columns["score"].extend(scores.tolist())
            columns["map_max"].extend(maps.amax(dim=(1, 2)).tolist())
            if with_maps:
                columns["anomaly_map"].extend(maps.float().cpu().numpy())
    finally:
        model.train(was_training)
    final_scores = {name: iter(scores.tolist()) for name, scores in protocol.final_scores().items()}
    columns["class_name"] = list(samples.class_names)
    columns["object_name"] = list(dataset["object_name"])
    columns["final_score"] = [next(final_scores[name]) for name in samples.class_names]
    size = model.config.vision_config.image_size
    text, number = datasets.Value("string"), datasets.Value("float32")
    features = {
        "class_name": text,
        "object_name": text,
        "label": datasets.ClassLabel(names=list(LABEL_NAMES)),
        "score": number,
        "map_max": number,
        "final_score": datasets.Value("float64"),
        "anomaly_map": datasets.Array2D((size, size), "float32"),
    }
    kept = {name: feature for name, feature in features.items() if name in columns}
    return datasets.Dataset.from_dict({name: columns[name] for name in kept}, features=datasets.Features(kept))


def _defined(value: float | None) -> float | None:
    return None if value is None or value != value else value
