"""`pipeline("zero-shot-anomaly-detection")`: pictures and the names of what they show in, verdicts and maps out."""

import types
from collections.abc import Iterator

import numpy as np
import torch
from transformers import AutoModel, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_moeclip import IS_INSTALLED_PACKAGE
from .image_processing_moeclip import picture_size
from .modeling_moeclip import MoECLIPOutput
from .prompts_moeclip import GENERIC_OBJECT_NAME
from .regions_moeclip import find_boxes


TASK = "zero-shot-anomaly-detection"

# Objects whose prompts are remembered; a service that is sent ever new names must not grow without end.
MAX_REMEMBERED_OBJECTS = 1024

_PREPROCESS_PARAMETERS = {"object_name"}
_POSTPROCESS_PARAMETERS = {"smoothing", "threshold", "mask_threshold"}


class ZeroShotAnomalyDetectionPipeline(Pipeline):
    r"""Scores pictures of any object for anomalies and shows where they are.

    The text tower reads an object's name once, however many pictures and calls follow. The model is put into
    evaluation mode.

    Args:
        model ([`MoECLIPForAnomalyDetection`]):
            The model.
        processor ([`MoECLIPProcessor`]):
            Its processor.
        object_name, smoothing, threshold, mask_threshold, batch_size (*optional*):
            Defaults of the calls, see [`~ZeroShotAnomalyDetectionPipeline.__call__`].
        **kwargs:
            As in transformers' [`Pipeline`], such as `device`.

    Example:
    ```python
    >>> import moeclip_hf
    >>> from moeclip_hf.demo import DEMO_MODEL, draw_example
    >>> from transformers import pipeline

    >>> pipe = pipeline("zero-shot-anomaly-detection", model=DEMO_MODEL)
    >>> result = pipe(draw_example("tree_leaf", "hole"), object_name="tree leaf")
    >>> result["anomaly_map"].shape
    torch.Size([224, 224])
    ```
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, model, processor=None, **kwargs):
        super().__init__(model, processor=processor, **kwargs)
        if processor is None:
            raise ValueError("`processor` is needed beside a model that is loaded already: give its MoECLIPProcessor.")
        self.model.eval()
        # Those that were read from a repository hold classes by now, which no config.json can.
        self.model.config.custom_pipelines = custom_pipelines()
        self._prompt_embeds: dict[str, torch.Tensor] = {}
        self._prompt_state = None

    def __call__(self, images, **kwargs):
        """Scores pictures.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, path, URL, or a list or generator of them):
                The pictures, see [`MoECLIPImageProcessor.preprocess`]; an array of 4 dimensions is a batch. Instead of
                a picture a dict with `image` and `object_name` may stand, such as a row of a data set.
            object_name (`str` or `list[str]`, *optional*, defaults to `"object"`):
                What is on the pictures: one name for all or one a picture.
            smoothing (`str` or `tuple[int, float]`, *optional*, defaults to `"industrial"`):
                `"industrial"`, `"medical"`, `(kernel, sigma)` in patches or None, see [`smooth_anomaly_logits`].
            threshold (`float`, *optional*):
                Score from which a picture counts as anomalous.
            mask_threshold (`float`, *optional*):
                Value of the map from which a pixel counts as anomalous.
            batch_size (`int`, *optional*, defaults to 1):
                How many pictures the model sees at once.
            num_workers (`int`, *optional*, defaults to 0):
                Processes that open and prepare pictures.
            **kwargs:
                The arguments above but the first.

        Returns:
            A dict for one picture, a list of dicts for a list or a batch, an iterator of dicts for a generator. Each
            has `score`, a float in [0, 1], and `anomaly_map`, a float32 tensor of shape `(height, width)` on the
            upright picture's own pixels, in the model's raw units; with `threshold` also `label`, a bool; with
            `mask_threshold` also `mask`, a bool tensor of the map's shape, and `boxes`: for each connected region of
            the mask a dict of `box`, `(left, top, right, bottom)` in pixels, right and bottom just outside, and
            `score`, the map's largest value in it, the highest first.

        Raises:
            ValueError: If there is no picture, one cannot be read, or names and pictures differ in number.
        """
        images = _as_pictures(images)
        names = kwargs.pop("object_name", None)
        if isinstance(names, (list, tuple)):
            images = _with_names(images, names)
        elif names is not None:
            kwargs["object_name"] = names
        return super().__call__(images, **kwargs)

    def _sanitize_parameters(self, **parameters):
        unknown = sorted(set(parameters) - _PREPROCESS_PARAMETERS - _POSTPROCESS_PARAMETERS)
        if unknown:
            known = ", ".join(sorted(_PREPROCESS_PARAMETERS | _POSTPROCESS_PARAMETERS))
            raise TypeError(f"Unknown argument {unknown[0]!r} of the {TASK} pipeline. Known arguments: {known}.")
        if not isinstance(parameters.get("object_name", GENERIC_OBJECT_NAME), str):
            raise TypeError(f"`object_name` must be one name here, got {parameters['object_name']!r}.")
        before = {name: value for name, value in parameters.items() if name in _PREPROCESS_PARAMETERS}
        after = {name: value for name, value in parameters.items() if name in _POSTPROCESS_PARAMETERS}
        return before, {}, after

    def preprocess(self, inputs, object_name: str = GENERIC_OBJECT_NAME) -> dict:
        """Opens and prepares one picture.

        Args:
            inputs (picture, path, URL or `dict`):
                The picture, or a dict of `image` and, if it is another than `object_name`, `object_name`.
            object_name (`str`, *optional*, defaults to `"object"`):
                What is on it.

        Returns:
            `dict`: `pixel_values` of shape `(1, 3, height, width)`, `object_name`, and `target_size`, the upright
            picture's height and width in pixels.
        """
        if isinstance(inputs, dict):
            if "image" not in inputs:
                keys = ", ".join(map(repr, sorted(inputs)))
                raise ValueError(f"A dict in `images` has no `image`, only {keys}: name the picture so.")
            object_name = inputs.get("object_name", object_name)
            inputs = inputs["image"]
        image = self.processor.image_processor.fetch_images(inputs)
        pixel_values = self.processor(images=image, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixel_values, "object_name": object_name, "target_size": picture_size(image)}

    def _forward(self, model_inputs: dict) -> dict:
        names, sizes = model_inputs["object_name"], model_inputs["target_size"]
        distinct = list(dict.fromkeys([names] if isinstance(names, str) else names))
        rows = [distinct.index(name) for name in ([names] if isinstance(names, str) else names)]
        prompt_embeds = torch.stack([self._embed_prompts(name) for name in distinct])
        outputs = self.model(
            model_inputs["pixel_values"],
            prompt_embeds=prompt_embeds,
            prompt_state=self._prompt_state,
            object_ids=torch.tensor(rows, device=self.device),
            return_dict=True,
        )
        # The batch's size is read off the first entry.
        return {"anomaly_logits": outputs.anomaly_logits, "image_score": outputs.image_score, "target_size": sizes}

    def postprocess(self, model_outputs: dict, smoothing="industrial", threshold=None, mask_threshold=None) -> dict:
        """Turns one picture's outputs into its result.

        Args:
            model_outputs (`dict`):
                `anomaly_logits` of shape `(1, grid, grid)`, `image_score` of shape `(1,)` and `target_size`.
            smoothing (`str` or `tuple[int, float]`, *optional*, defaults to `"industrial"`):
                Of the map.
            threshold (`float`, *optional*):
                Of the score.
            mask_threshold (`float`, *optional*):
                Of the map.

        Returns:
            `dict`: the result.
        """
        outputs = MoECLIPOutput(
            anomaly_logits=model_outputs["anomaly_logits"], image_score=model_outputs["image_score"]
        )
        (result,) = self.processor.post_process_anomaly_detection(
            outputs, [model_outputs["target_size"]], smoothing, threshold, mask_threshold
        )
        if "mask" in result:
            result["boxes"] = find_boxes(result["mask"].numpy(), result["anomaly_map"].numpy())
        return result

    def save_pretrained(self, save_directory, **kwargs):
        """Saves model, processor and the code of both and of this pipeline: all that `pipeline` needs to load it.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder to write, made if missing.
            **kwargs:
                Arguments of [`MoECLIPForAnomalyDetection.save_pretrained`], such as `adapters_only`; those that push
                to the Hub reach the processor too.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        for name in ("adapters_only", "state_dict", "max_shard_size", "variant", "safe_serialization"):
            kwargs.pop(name, None)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _embed_prompts(self, name: str) -> torch.Tensor:
        """Features of the frozen text tower, `(num_prompts, text_hidden)`, computed once an object.

        The text adapter is left to the forward pass, because it may be trained further or exchanged.
        """
        if name not in self._prompt_embeds:
            encoded = self.processor(object_names=name, return_tensors="pt").to(self.device)
            if len(self._prompt_embeds) >= MAX_REMEMBERED_OBJECTS:
                del self._prompt_embeds[next(iter(self._prompt_embeds))]
            self._prompt_state = encoded["prompt_state"]
            features = self.model.get_prompt_embeds(encoded["input_ids"], encoded["attention_mask"])
            self._prompt_embeds[name] = features[0]
        return self._prompt_embeds[name]


def custom_pipelines() -> dict:
    """What a model's `config.json` says about this pipeline, so that `pipeline` finds it in a repository.

    Returns:
        `dict`: the task's file, class and model class.
    """
    implementation = f"pipeline_moeclip.{ZeroShotAnomalyDetectionPipeline.__name__}"
    return {TASK: {"impl": implementation, "pt": ["AutoModel"], "type": "multimodal"}}


def _as_pictures(images):
    """One picture as it is, several as a list, a generator as it is."""
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        return list(images)
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is empty: give at least one picture.")
        return list(images)
    return images


def _with_names(images, names) -> dict | list[dict] | Iterator[dict]:
    """Puts each picture and its object's name together."""
    if isinstance(images, types.GeneratorType):
        return ({"image": image, "object_name": name} for image, name in zip(images, names, strict=True))
    pictures = images if isinstance(images, list) else [images]
    if len(names) != len(pictures):
        raise ValueError(
            f"`object_name` has {len(names)} names for {len(pictures)} pictures: give one for all or one a picture."
        )
    named = [{"image": image, "object_name": name} for image, name in zip(pictures, names, strict=True)]
    return named if isinstance(images, list) else named[0]


if IS_INSTALLED_PACKAGE:
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=ZeroShotAnomalyDetectionPipeline, pt_model=AutoModel, type="multimodal"
    )

__all__ = ["ZeroShotAnomalyDetectionPipeline"]
