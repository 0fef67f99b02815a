"""Pictures and object names to the model's inputs, and the model's outputs to anomaly maps on the pictures' pixels."""

import os

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoProcessor, AutoTokenizer
from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .configuration_moeclip import IS_INSTALLED_PACKAGE, MoECLIPConfig
from .image_processing_moeclip import MoECLIPImageProcessor
from .prompts_moeclip import build_prompts


# Kernel size in patches and sigma in patches of the paper's two domains.
SMOOTHING = {"industrial": (7, 1.0), "medical": (9, 1.5)}


def smooth_anomaly_logits(
    anomaly_logits: torch.Tensor, smoothing: str | tuple[int, float] | None = "industrial"
) -> torch.Tensor:
    """Blurs maps on the grid of patches with a Gaussian, mirrored at the borders without repeating the edge.

    The weights are exp(-x^2 / (2 sigma^2)) at whole patches, divided by their sum.

    Args:
        anomaly_logits (`torch.Tensor` of shape `(batch_size, grid, grid)`):
            Maps of any floating type.
        smoothing (`str` or `tuple[int, float]`, *optional*, defaults to `"industrial"`):
            `"industrial"` (kernel 7, sigma 1), `"medical"` (kernel 9, sigma 1.5), `(kernel, sigma)` in patches, or
            None for no blur.

    Returns:
        `torch.Tensor` of shape `(batch_size, grid, grid)` and type float32.

    Raises:
        ValueError: If `smoothing` is none of these, or the kernel reaches beyond the mirrored grid.
    """
    maps = anomaly_logits.float()
    if smoothing is None:
        return maps
    kernel_size, sigma = _kernel_of(smoothing)
    radius = kernel_size // 2
    smallest_side = min(maps.shape[-2:])
    if smallest_side <= radius:
        raise ValueError(
            f"`smoothing` {smoothing!r} with kernel {kernel_size} needs a grid of at least {radius + 1} patches a side,"
            f" got {smallest_side}: use a smaller kernel, such as ({2 * (smallest_side - 1) + 1}, {sigma}), or None."
        )
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).to(maps)
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="reflect")  # (batch_size, 1, rows, columns)
    blurred = F.conv2d(padded, weights.view(1, 1, 1, -1))
    return F.conv2d(blurred, weights.view(1, 1, -1, 1))[:, 0]


def resize_anomaly_map(maps: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """Resizes maps bilinearly, the corner patches' values on the corner pixels (`align_corners=True`).

    Args:
        maps (`torch.Tensor` of shape `(batch_size, height, width)`):
            Maps of a floating type.
        size (`int` or `tuple[int, int]`):
            Side of a square, or height and width, in pixels.

    Returns:
        `torch.Tensor` of shape `(batch_size, *size)` and the maps' type.

    Raises:
        ValueError: If `size` is not one or two positive whole numbers.
    """
    size = _check_size(size)
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


class MoECLIPProcessor(ProcessorMixin):
    r"""Joins a [`MoECLIPImageProcessor`] and CLIP's tokenizer, and turns outputs into results.

    Args:
        image_processor ([`MoECLIPImageProcessor`]):
            Prepares pictures and masks.
        tokenizer (`CLIPTokenizer`):
            Encodes the prompts of the objects; its `model_max_length` is the longest prompt in tokens.

    Example:
    ```python
    >>> inputs = processor(images=[first, second], object_names="metal nut", return_tensors="pt")
    >>> outputs = model(**inputs)
    >>> sizes = [(picture.height, picture.width) for picture in (first, second)]
    >>> results = processor.post_process_anomaly_detection(outputs, target_sizes=sizes)
    >>> results[0]["anomaly_map"].shape == sizes[0], results[0]["score"]

    ```
    """

    def __init__(self, image_processor=None, tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def from_clip(cls, clip_name_or_path: str | os.PathLike, config: MoECLIPConfig) -> "MoECLIPProcessor":
        """Builds the processor of a fresh model on a pretrained CLIP.

        Args:
            clip_name_or_path (`str` or `os.PathLike`):
                Hub id or folder of the CLIP, for its tokenizer.
            config ([`MoECLIPConfig`]):
                The model's configuration, for its input size, its longest prompt and, where the model is on this CLIP,
                the CLIP's revision.

        Returns:
            [`MoECLIPProcessor`]: The processor.

        Raises:
            OSError: If there is no such CLIP.
            ValueError: If it has no tokenizer.
        """
        is_models_own = clip_name_or_path == config.base_model_name_or_path and config.base_model_revision is not None
        revision = {"revision": config.base_model_revision} if is_models_own else {}
        tokenizer = AutoTokenizer.from_pretrained(clip_name_or_path, **revision)
        # without its files transformers answers with a tokenizer that knows no words
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError(
                f"{clip_name_or_path} has no tokenizer: put the files of the CLIP's own (tokenizer.json) into it."
            )
        tokenizer.model_max_length = min(tokenizer.model_max_length, config.text_config.max_position_embeddings)
        return cls(MoECLIPImageProcessor(size=config.vision_config.image_size), tokenizer)

    def __call__(
        self, images=None, object_names=None, masks=None, return_tensors: str | None = "pt", **images_kwargs
    ) -> BatchFeature:
        """Prepares pictures, the prompts of their objects, or both.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, path, or a sequence of them, *optional*):
                The pictures, see [`MoECLIPImageProcessor.preprocess`].
            object_names (`str` or `Sequence[str]`, *optional*):
                What is on the pictures: one name for all of them or one a picture. Each distinct name is encoded
                once. Without `images`, the names to encode.
            masks (like `images`, *optional*):
                One mask an image; None in a list stands for a mask that is not known.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                `"pt"` for torch, `"np"` for numpy.
            **images_kwargs:
                Further arguments of the image processor for this call.

        Returns:
            `BatchFeature`: with `object_names`, `input_ids` and `attention_mask` of shape
            `(num_objects, 16, sequence_length)`, padded to the longest prompt, and `prompt_state` of shape `(16,)`,
            0 normal and 1 anomalous; with `images`, `pixel_values` of shape `(batch_size, 3, height, width)` and, with
            `masks`, `mask_labels` of shape `(batch_size, height, width)`; with both, `object_ids` of shape
            `(batch_size,)`, the row of each image's object. `model(**inputs)` takes them as they are.

        Raises:
            ValueError: If there is nothing to do, a name is empty or too long, or counts or sizes do not match.
        """
        if images is None and object_names is None:
            raise ValueError("give `images`, `object_names` or both.")
        if images is None and masks is not None:
            raise ValueError("`masks` need their `images`.")
        features = {}
        if images is not None:
            features.update(self.image_processor(images, masks=masks, return_tensors=return_tensors, **images_kwargs))
        if object_names is not None:
            num_images = len(features["pixel_values"]) if images is not None else None
            features.update(self._encode_objects(object_names, num_images))
        return BatchFeature(features, tensor_type=return_tensors)

    def post_process_anomaly_detection(
        self,
        outputs,
        target_sizes=None,
        smoothing: str | tuple[int, float] | None = "industrial",
        threshold: float | None = None,
        mask_threshold: float | None = None,
    ) -> list[dict]:
        """Turns the model's outputs into one result an image.

        The map is the paper's anomaly map summed over levels and scales, blurred on the grid of patches and resized
        from there straight to the target size.

        Args:
            outputs ([`MoECLIPOutput`]):
                Of `batch_size` images; `anomaly_logits` and `image_score` are read.
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch_size, 2)`, *optional*):
                Height and width in pixels of each map, usually those of the upright picture. None leaves the maps on
                the grid of patches.
            smoothing (`str` or `tuple[int, float]`, *optional*, defaults to `"industrial"`):
                `"industrial"`, `"medical"`, `(kernel, sigma)` in patches or None, see [`smooth_anomaly_logits`].
            threshold (`float`, *optional*):
                Score from which an image counts as anomalous.
            mask_threshold (`float`, *optional*):
                Value of the map from which a pixel counts as anomalous.

        Returns:
            `list[dict]`: for each image `anomaly_map`, a float32 tensor of shape `(height, width)` in the units of
            `anomaly_logits`, and `score`, a float in [0, 1]; with `threshold` also `label`, a bool; with
            `mask_threshold` also `mask`, a bool tensor of shape `(height, width)`.

        Raises:
            ValueError: If the number of sizes is not the number of images, or `smoothing` does not fit the grid.
        """
        maps = smooth_anomaly_logits(outputs.anomaly_logits.detach(), smoothing)
        scores = outputs.image_score.detach().float().tolist()
        sizes = [None] * len(maps) if target_sizes is None else [_check_size(size) for size in target_sizes]
        if len(sizes) != len(maps):
            raise ValueError(f"`target_sizes` has {len(sizes)} entries for {len(maps)} images: give one an image.")
        results = []
        for grid_map, score, size in zip(maps, scores, sizes, strict=True):
            anomaly_map = grid_map if size is None else resize_anomaly_map(grid_map[None], size)[0]
            result = {"anomaly_map": anomaly_map, "score": score}
            if threshold is not None:
                result["label"] = score >= threshold
            if mask_threshold is not None:
                result["mask"] = anomaly_map >= mask_threshold
            results.append(result)
        return results

    def _encode_objects(self, object_names, num_images: int | None) -> dict:
        """Token ids of each distinct name's prompts and, for images, the row of each image's name."""
        names = [object_names] if isinstance(object_names, str) else list(object_names)
        if not names:
            raise ValueError("`object_names` is empty: give at least one name.")
        if num_images is not None and len(names) not in (1, num_images):
            raise ValueError(
                f"`object_names` has {len(names)} entries for {num_images} images: give one for all or one an image."
            )
        prompts_of_name, prompt_state = {}, []
        for name in names:
            prompts, prompt_state = build_prompts(name)
            prompts_of_name[name] = prompts
        features = self._tokenize(prompts_of_name)
        features["prompt_state"] = np.asarray(prompt_state, dtype=np.int64)
        if num_images is not None:
            rows = {name: row for row, name in enumerate(prompts_of_name)}
            object_ids = [rows[name] for name in names]
            features["object_ids"] = np.asarray(object_ids * (num_images // len(names)), dtype=np.int64)
        return features

    def _tokenize(self, prompts_of_name: dict[str, list[str]]) -> dict:
        """`input_ids` and `attention_mask`, (num_objects, num_prompts, sequence_length)."""
        prompts = [prompt for prompts in prompts_of_name.values() for prompt in prompts]
        encoded = self.tokenizer(
            prompts, padding="longest", padding_side="right", truncation=False, return_tensors="np", verbose=False
        )
        shape = (len(prompts_of_name), len(prompts) // len(prompts_of_name), -1)
        features = {key: encoded[key].astype(np.int64).reshape(shape) for key in ("input_ids", "attention_mask")}
        longest = features["attention_mask"].sum(axis=-1).max(axis=-1)  # (num_objects,)
        for name, length in zip(prompts_of_name, longest, strict=True):
            if length > self.tokenizer.model_max_length:
                raise ValueError(
                    f"`object_names` holds {name!r}, whose longest prompt has {length} tokens, but the text encoder reads"
                    f" at most {self.tokenizer.model_max_length}: use a shorter name."
                )
        return features


def _kernel_of(smoothing) -> tuple[int, float]:
    if isinstance(smoothing, str) and smoothing in SMOOTHING:
        return SMOOTHING[smoothing]
    if isinstance(smoothing, (tuple, list)) and len(smoothing) == 2:
        kernel_size, sigma = smoothing
        if isinstance(kernel_size, int) and isinstance(sigma, (int, float)):
            if kernel_size > 0 and kernel_size % 2 == 1 and sigma > 0:
                return kernel_size, float(sigma)
    raise ValueError(
        f"`smoothing` must be {', '.join(map(repr, SMOOTHING))}, (odd kernel size, positive sigma) in patches or None,"
        f" got {smoothing!r}."
    )


def _check_size(size) -> tuple[int, int]:
    values = size.tolist() if isinstance(size, (torch.Tensor, np.ndarray)) else size
    values = [values, values] if isinstance(values, int) else list(values)
    if len(values) != 2 or not all(value == int(value) and value > 0 for value in values):
        raise ValueError(f"a size must be height and width in pixels, got {tuple(values)}.")
    return int(values[0]), int(values[1])


MoECLIPProcessor.register_for_auto_class()
if IS_INSTALLED_PACKAGE:
    AutoProcessor.register(MoECLIPConfig, MoECLIPProcessor, exist_ok=True)

__all__ = ["SMOOTHING", "MoECLIPImageProcessor", "MoECLIPProcessor", "resize_anomaly_map", "smooth_anomaly_logits"]
