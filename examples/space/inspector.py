"""What the Space computes and draws, apart from how it looks: one model, pictures in, results out."""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import pipeline

from moeclip_hf import MoECLIPConfig, MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.image_processing_moeclip import picture_size
from moeclip_hf.processing_moeclip import resize_anomaly_map, smooth_anomaly_logits
from moeclip_hf.regions_moeclip import find_boxes
from moeclip_hf.visualization import chosen_experts, outline_mask, overlay_anomaly_map, overlay_experts


DOMAINS = ("industrial", "medical")

# Longest side in pixels of what is shown, at least and at most; results are computed at the picture's own size.
SHOWN_SIZES = (512, 1024)

# What Pillow raises for files that are no pictures, or damaged or oversized ones.
BAD_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

COLUMNS = ("file", "score", "label", "problem")


@dataclass(frozen=True)
class Inspection:
    """What the model said about one picture: all that is needed to draw it again with other settings.

    Args:
        picture (`PIL.Image.Image`): the upright picture, RGB, of a size that suits a page.
        size (`tuple[int, int]`): height and width of the original in pixels.
        score (`float`): the picture's score, in [0, 1].
        anomaly_logits (`torch.Tensor` of shape `(1, grid_size, grid_size)`): the map before smoothing.
        experts (`dict[int, torch.Tensor]`):
            For each layer with experts the number of each patch's first choice, `(grid_size, grid_size)`.
        num_experts (`int`): experts of a layer, 0 for a model without.
    """

    picture: Image.Image
    size: tuple[int, int]
    score: float
    anomaly_logits: torch.Tensor
    experts: dict[int, torch.Tensor]
    num_experts: int


class Inspector:
    """A model of a repository with its processor.

    Args:
        repository (`str` or `os.PathLike`): Hub id or folder of a MoECLIP model.

    Raises:
        OSError: If there is no such repository.
        ValueError: If it holds no MoECLIP model.
    """

    def __init__(self, repository: str | os.PathLike):
        settings, _ = MoECLIPConfig.get_config_dict(repository)
        kind = settings.get("model_type")
        if kind != MoECLIPConfig.model_type:
            raise ValueError(f"{repository} holds no MoECLIP model (its type is {kind or 'not known'}): name another.")
        self.model = MoECLIPForAnomalyDetection.from_pretrained(repository)
        self.processor = MoECLIPProcessor.from_pretrained(repository)
        self.pipe = pipeline("zero-shot-anomaly-detection", model=self.model, processor=self.processor)

    @torch.inference_mode()
    def inspect(self, file: str | os.PathLike, object_name: str) -> Inspection:
        """Runs the model on one picture.

        Args:
            file (`str` or `os.PathLike`): The picture's file.
            object_name (`str`): What is on it.

        Returns:
            [`Inspection`]: what the model said.

        Raises:
            ValueError: If the file is no readable picture or the name is empty or too long.
        """
        try:
            image = self.processor.image_processor.fetch_images(Path(file))
            size = picture_size(image)
            pixels = self.processor.image_processor.process_image(image)  # (3, height, width)
        except BAD_PICTURE as error:
            raise ValueError(_problem(error, file)) from error
        picture = Image.fromarray(pixels.transpose(1, 2, 0))
        inputs = self.processor(images=picture, object_names=object_name).to(self.model.device)
        outputs = self.model(**inputs, output_router_logits=True)
        layers = self.model.moe_lora_layers()
        choices = [chosen_experts(logits)[0].cpu() for logits in outputs.router_logits or ()]
        return Inspection(
            picture=_fit_page(picture),
            size=size,
            score=float(outputs.image_score[0]),
            anomaly_logits=outputs.anomaly_logits.cpu(),
            experts=dict(zip(layers, choices, strict=True)),
            num_experts=next(iter(layers.values())).router.shape[0] if layers else 0,
        )

    def score_files(self, files: Iterable[str | os.PathLike], object_name: str, threshold: float) -> list[dict]:
        """Scores many pictures; one that cannot be read is named and left out.

        Args:
            files (`Iterable[str | os.PathLike]`): The pictures' files.
            object_name (`str`): What is on all of them.
            threshold (`float`): Score from which a picture counts as anomalous.

        Returns:
            `list[dict]`: for each file `file`, its name, `score`, `label` (`"normal"` or `"anomalous"`) and `problem`;
            of the last two pairs, what does not apply is empty.

        Raises:
            ValueError: If the name is empty or too long.
        """
        self.processor(object_names=object_name)  # a bad name is no fault of the first file's
        rows = []
        for file in files:
            row = dict.fromkeys(COLUMNS, "") | {"file": Path(file).name}
            try:
                result = self.pipe(Path(file), object_name=object_name, threshold=threshold)
                row |= {"score": result["score"], "label": "anomalous" if result["label"] else "normal"}
            except BAD_PICTURE as error:
                row["problem"] = _problem(error, file)
            rows.append(row)
        return rows


def compute_map(inspection: Inspection, domain: str) -> torch.Tensor:
    """Smooths and resizes the anomaly map, without the model.

    Args:
        inspection ([`Inspection`]): What the model said.
        domain (`str`): `"industrial"` or `"medical"`.

    Returns:
        `torch.Tensor` of shape `(height, width)`: the map on the original's pixels.
    """
    return resize_anomaly_map(smooth_anomaly_logits(inspection.anomaly_logits, domain), inspection.size)[0]


def draw_map(inspection: Inspection, anomaly_map: torch.Tensor) -> Image.Image:
    """Lays the map over the picture.

    Args:
        inspection ([`Inspection`]): What the model said.
        anomaly_map (`torch.Tensor` of shape `(height, width)`): Its map.

    Returns:
        `PIL.Image.Image`: the picture with the map.
    """
    return overlay_anomaly_map(inspection.picture, anomaly_map)


def draw_mask(inspection: Inspection, anomaly_map: torch.Tensor, mask_threshold: float) -> tuple[Image.Image, list]:
    """Outlines the regions in which the map reaches a threshold.

    Args:
        inspection ([`Inspection`]): What the model said.
        anomaly_map (`torch.Tensor` of shape `(height, width)`): Its map.
        mask_threshold (`float`): The threshold.

    Returns:
        `tuple(PIL.Image.Image, list[dict])`: the picture with the outlines, and the regions' boxes and scores in the
        original's pixels.
    """
    mask = anomaly_map >= mask_threshold
    width = max(3, max(inspection.picture.size) // 170)
    return outline_mask(inspection.picture, mask, width=width), find_boxes(mask.numpy(), anomaly_map.numpy())


def draw_experts(inspection: Inspection) -> list[tuple[Image.Image, str]]:
    """Shows which expert each patch is sent to first.

    Args:
        inspection ([`Inspection`]): What the model said.

    Returns:
        `list[tuple[PIL.Image.Image, str]]`: a picture and a caption for each layer with experts.
    """
    return [
        (overlay_experts(inspection.picture, choices, inspection.num_experts), f"layer {layer}")
        for layer, choices in inspection.experts.items()
    ]


def write_scores(rows: list[dict], path: str | os.PathLike) -> None:
    """Writes scores to a CSV file.

    Args:
        rows (`list[dict]`): Of [`Inspector.score_files`].
        path (`str` or `os.PathLike`): The file.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _fit_page(picture: Image.Image) -> Image.Image:
    longest = max(picture.size)
    scale = min(max(longest, SHOWN_SIZES[0]), SHOWN_SIZES[1]) / longest
    return picture.resize([max(round(side * scale), 1) for side in picture.size], Image.Resampling.LANCZOS)


def _problem(error: Exception, file: str | os.PathLike) -> str:
    """An error in one line, with the file's name instead of the place where the upload lies."""
    return " ".join(str(error).replace(str(file), Path(file).name).split())
