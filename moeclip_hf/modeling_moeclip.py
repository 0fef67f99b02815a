"""MoECLIP: zero-shot anomaly detection with a frozen CLIP and patch-routed LoRA experts.

Source: Park et al., "MoECLIP: Patch-Specialized Experts for Zero-shot Anomaly Detection", CVPR 2026,
https://arxiv.org/abs/2603.03101.

The frozen vision tower, adapted by experts after some of its layers, gives patch tokens at several depths. They are
averaged over windows of several sizes, projected, and compared with two texts about the object, one normal and one
anomalous. Class 0 is normal and class 1 is anomalous throughout.
"""

import copy
import math
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
    AutoModel,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer
from transformers.utils import ModelOutput, resolve_revision
from transformers.utils.output_capturing import OutputRecorder

from .adapters_moeclip import DEFAULT_ADAPTER, MoECLIPAdapterMixin
from .backbone_moeclip import (
    adapters_on_clip,
    backbone_state_dict,
    check_loading_info,
    config_on_clip,
    hub_arguments,
    is_adapter_key,
    load_clip,
    projection_state_dict,
    remove_earlier_weights,
    weights_errors,
)
from .configuration_moeclip import IS_INSTALLED_PACKAGE, MoECLIPConfig, MoELoraConfig
from .experts_moeclip import MoELoraExperts
from .heads_moeclip import ImageHead, Projection, average_patches
from .loss_moeclip import classification_loss, etf_loss, load_balancing_loss, segmentation_loss
from .tuner_moeclip import MoELoraLayer, MoELoraModel, attach_moe_lora


if TYPE_CHECKING:
    # Never run. `save_pretrained` copies every file that this one names in an import from beside itself, so this is the
    # list of the code that a saved model carries beyond what the model needs.
    from .processing_moeclip import MoECLIPProcessor  # noqa: F401


# Similarities are multiplied by this before the softmax over the two classes; CLIP's own logit scale ends there too.
LOGIT_SCALE = 100.0
IGNORED_MASK = -100


@dataclass
class MoECLIPOutput(ModelOutput):
    """Output of [`MoECLIPForAnomalyDetection`].

    Args:
        loss (`torch.Tensor`, *optional*, returned with labels): Weighted sum of the terms below.
        classification_loss (`torch.Tensor`, *optional*, returned with `labels`): Cross-entropy of the image.
        segmentation_loss (`torch.Tensor`, *optional*, returned with `mask_labels`): Focal and dice losses of the maps.
        aux_loss (`torch.Tensor`, *optional*, returned with labels and experts): Load balancing, unweighted.
        etf_loss (`torch.Tensor`, *optional*, returned with labels and experts): Equiangular-frame loss, unweighted.
        anomaly_logits (`torch.Tensor` of shape `(batch_size, grid_size, grid_size)`):
            Sum over the maps of (100 s_a + 1 - 100 s_n) / 2, s_n and s_a being a patch's similarities to the normal and
            the anomalous text; not smoothed.
        image_score (`torch.Tensor` of shape `(batch_size,)`): Anomaly score of the image head, in [0, 1].
        image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): Image embeddings.
        patch_embeds (`tuple(torch.Tensor)`):
            One `(batch_size, num_patches, projection_dim)` per feature layer and averaging window, layer-major, each
            patch L2-normalised.
        text_embeds (`torch.Tensor` of shape `(num_objects, 2, projection_dim)`): Normal and anomalous text embeddings.
        router_logits (`tuple(torch.Tensor)`, *optional*, returned with `output_router_logits=True`):
            One `(batch_size, sequence_length, num_experts)` per layer with experts, class token first.
        hidden_states (`tuple(torch.Tensor)`, *optional*, returned with `output_hidden_states=True`):
            The vision tower's embeddings and layer outputs, `(batch_size, sequence_length, hidden_size)` each.
        attentions (`tuple(torch.Tensor)`, *optional*, returned with `output_attentions=True`):
            The vision tower's attention weights.
    """

    loss: torch.Tensor | None = None
    classification_loss: torch.Tensor | None = None
    segmentation_loss: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None
    etf_loss: torch.Tensor | None = None
    anomaly_logits: torch.Tensor | None = None
    image_score: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    patch_embeds: tuple[torch.Tensor, ...] | None = None
    text_embeds: torch.Tensor | None = None
    router_logits: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class FusedQuickGELU(nn.Module):
    """x * sigmoid(1.702 x), OpenAI's GELU, as one fused operation.

    It keeps one tensor for the backward pass where the plain product keeps two: most of a training step's memory is the
    frozen tower's activations.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Applies the activation to a tensor of any shape."""
        return nn.functional.silu(1.702 * features) / 1.702


class MoECLIPVisionModel(CLIPVisionModel):
    """CLIP's vision tower, able to record what the experts beside its layers do."""

    _can_record_outputs = {
        "hidden_states": CLIPEncoderLayer,
        "attentions": CLIPAttention,
        "router_logits": OutputRecorder(MoELoraLayer, index=1),
        "expert_codes": OutputRecorder(MoELoraLayer, index=2),
    }

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        if config.hidden_act == "quick_gelu":
            for layer in self.encoder.layers:
                layer.mlp.activation_fn = FusedQuickGELU()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, MoELoraExperts):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class MoECLIPPreTrainedModel(PreTrainedModel):
    """What loading and saving need to know of a MoECLIP model."""

    config: MoECLIPConfig
    config_class = MoECLIPConfig
    base_model_prefix = "moeclip"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    _no_split_modules = ["CLIPTextEmbeddings", "CLIPEncoderLayer", "CLIPVisionEmbeddings", "ImageHead"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, Projection):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class MoECLIPForAnomalyDetection(MoECLIPAdapterMixin, MoECLIPPreTrainedModel):
    r"""Anomaly maps and scores of images, given two texts about the object in each.

    The CLIP inside is frozen; experts, projections, image head and text adapter are trained.

    Args:
        config ([`MoECLIPConfig`]): Sizes and options of the model.

    Example:
    ```python
    >>> from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
    >>> from moeclip_hf.demo import DEMO_MODEL, draw_example

    >>> model = MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL)
    >>> processor = MoECLIPProcessor.from_pretrained(DEMO_MODEL)
    >>> inputs = processor(images=draw_example(), object_names="hex nut")
    >>> model(**inputs).image_score.shape
    torch.Size([1])
    ```
    """

    def __init__(self, config: MoECLIPConfig):
        super().__init__(config)
        vision_config, text_config = config.vision_config, config.text_config
        self.text_model = CLIPTextModel._from_config(text_config)
        self.vision_model = MoECLIPVisionModel._from_config(vision_config)
        if config.moe_lora is not None:
            MoELoraModel(self.vision_model, MoELoraConfig(**config.moe_lora), DEFAULT_ADAPTER)
        for layer in self.vision_model.encoder.layers:
            attach_moe_lora(layer)  # empty where this adapter has no experts: an adapter loaded later may have some

        self.patch_projections = nn.ModuleList(
            Projection(vision_config.hidden_size, config.projection_dim, config.patch_projection_act)
            for _ in range(config.num_patch_projections)
        )
        self.image_head = None
        if config.use_image_head:
            self.image_head = ImageHead(vision_config.hidden_size, config.projection_dim, vision_config.layer_norm_eps)
        self.text_adapter = Projection(text_config.hidden_size, config.projection_dim, "leaky_relu")
        self._start_adapters()
        self.post_init()
        self.freeze_backbone()

    def freeze_backbone(self) -> None:
        """Marks the active adapter as trainable; the CLIP under it and the other adapters as frozen."""
        trainable = self._single_adapter(dict(self.named_parameters()), self.active_adapter)
        self.requires_grad_(False)
        for name, parameter in trainable.items():
            parameter.requires_grad_(is_adapter_key(name))

    def moe_lora_layers(self) -> dict[int, MoELoraExperts]:
        """The active experts of each encoder layer that has some.

        Returns:
            `dict[int, MoELoraExperts]`: experts by 0-based layer number, in ascending order.
        """
        layers = enumerate(self.vision_model.encoder.layers)
        attached = {index: layer.moe_lora.active_experts() for index, layer in layers}
        return {index: experts[-1] for index, experts in attached.items() if experts}

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Counts the parameters, as PEFT does.

        Returns:
            `tuple[int, int]`: trainable parameters and all parameters.
        """
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)

    def print_trainable_parameters(self) -> None:
        """Prints the number and share of trainable parameters, as PEFT does."""
        trainable, total = self.get_nb_trainable_parameters()
        print(  # noqa: T201 - printing is what this method is for
            f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {100 * trainable / total:.4f}"
        )

    @torch.no_grad()
    def get_prompt_embeds(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Encodes prompts with the frozen text tower. Constant for an object: compute it once.

        Args:
            input_ids (`torch.Tensor` of shape `(num_objects, num_prompts, sequence_length)`): Token ids.
            attention_mask (`torch.Tensor` of the same shape, *optional*): 1 for tokens, 0 for padding.

        Returns:
            `torch.Tensor` of shape `(num_objects, num_prompts, text_hidden_size)`: the final layer norm's output at
            each prompt's end token.

        Raises:
            ValueError: If a prompt has no end token or is longer than the text tower's context.
        """
        context = self.config.text_config.max_position_embeddings
        if input_ids.shape[-1] > context:
            raise ValueError(
                f"`input_ids` holds prompts of {input_ids.shape[-1]} tokens, but the text tower reads at most {context}: "
                f"shorten the object's name."
            )
        flat_ids = input_ids.flatten(0, 1)
        flat_mask = None if attention_mask is None else attention_mask.flatten(0, 1)
        hidden_states = self.text_model(input_ids=flat_ids, attention_mask=flat_mask).last_hidden_state
        ends = self._end_token_positions(flat_ids)
        features = hidden_states[torch.arange(len(ends), device=ends.device), ends]
        return features.unflatten(0, input_ids.shape[:2])

    def _end_token_positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        eos_token_id = self.config.text_config.eos_token_id
        if eos_token_id == 2:
            # CLIP configs from before the id was corrected: the end token has the largest id of the vocabulary
            return input_ids.argmax(dim=-1)
        ids = torch.as_tensor(eos_token_id, device=input_ids.device)
        is_end = torch.isin(input_ids, ids)
        if not is_end.any(dim=-1).all():
            row = int((~is_end.any(dim=-1)).nonzero()[0])
            raise ValueError(
                f"`input_ids` has no end token ({eos_token_id}) in prompt {row}: tokenize with the model's own "
                f"tokenizer, without truncation."
            )
        return is_end.int().argmax(dim=-1)

    def get_text_embeds(self, prompt_embeds: torch.Tensor, prompt_state: torch.Tensor) -> torch.Tensor:
        """Adapts the prompts' features and averages them by state.

        Each prompt: adapter, L2-normalised; mean over the prompts of a state; L2-normalised.

        Args:
            prompt_embeds (`torch.Tensor` of shape `(num_objects, num_prompts, text_hidden_size)`):
                Features of [`~MoECLIPForAnomalyDetection.get_prompt_embeds`].
            prompt_state (`torch.Tensor` of shape `(num_prompts,)`): 0 for prompts of the normal state, 1 anomalous.

        Returns:
            `torch.Tensor` of shape `(num_objects, 2, projection_dim)`, float32, L2-normalised.

        Raises:
            ValueError: If `prompt_state` does not fit the prompts or lacks a state.
        """
        if prompt_state is None or prompt_state.shape != prompt_embeds.shape[1:2]:
            received = None if prompt_state is None else tuple(prompt_state.shape)
            raise ValueError(
                f"`prompt_state` (shape {received}) must give the state of each of the {prompt_embeds.shape[1]} "
                f"prompts: 0 normal, 1 anomalous."
            )
        weight = self.text_adapter.weight
        adapted = self.text_adapter(prompt_embeds.to(device=weight.device, dtype=weight.dtype))
        with _full_precision(adapted):
            adapted = nn.functional.normalize(adapted.float(), dim=-1)
            is_state = nn.functional.one_hot((prompt_state != 0).long(), 2).to(adapted)  # (num_prompts, 2)
            if not torch.compiler.is_compiling() and not is_state.any(dim=0).all():
                raise ValueError(
                    f"`prompt_state` ({prompt_state.tolist()}) must name both states: 0 normal, 1 anomalous."
                )
            means = torch.einsum("upd,ps->usd", adapted, is_state / is_state.sum(dim=0))
            return nn.functional.normalize(means, dim=-1)

    def forward(
        self,
        pixel_values: torch.Tensor,
        *,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_state: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        object_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        mask_labels: torch.Tensor | None = None,
        output_router_logits: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> MoECLIPOutput | tuple:
        r"""Computes anomaly maps and scores, and the losses if labels are given.

        Exactly one of `input_ids`, `prompt_embeds` and `text_embeds` describes the objects.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images of the model's input size.
            input_ids (`torch.Tensor` of shape `(num_objects, num_prompts, sequence_length)`, *optional*):
                Prompts of each distinct object, with `prompt_state`.
            attention_mask (`torch.Tensor` of the shape of `input_ids`, *optional*): 1 for tokens, 0 for padding.
            prompt_state (`torch.Tensor` of shape `(num_prompts,)`, *optional*):
                State each prompt describes: 0 normal, 1 anomalous.
            prompt_embeds (`torch.Tensor` of shape `(num_objects, num_prompts, text_hidden_size)`, *optional*):
                Features of [`~MoECLIPForAnomalyDetection.get_prompt_embeds`], with `prompt_state`.
            text_embeds (`torch.Tensor` of shape `(num_objects, 2, projection_dim)`, *optional*):
                Output of [`~MoECLIPForAnomalyDetection.get_text_embeds`].
            object_ids (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Row of each image's object. May be left out for one object, or one object per image.
            labels (`torch.Tensor` of shape `(batch_size,)`, *optional*): Nonzero for anomalous images.
            mask_labels (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                Nonzero for anomalous pixels. -100 throughout for an image whose mask is unknown: it takes no part in
                the segmentation loss.
            output_router_logits (`bool`, *optional*): Return the routers' logits.
            output_hidden_states (`bool`, *optional*): Return the vision tower's hidden states.
            output_attentions (`bool`, *optional*): Return the vision tower's attentions (eager attention only).
            return_dict (`bool`, *optional*): Return a [`MoECLIPOutput`] (default) or a tuple.

        Returns:
            [`MoECLIPOutput`] or `tuple`.

        Raises:
            ValueError: If the objects are described twice or not at all, or shapes do not fit.
        """
        self._check_pixel_values(pixel_values)
        with_losses = labels is not None or mask_labels is not None
        output_hidden_states = _default(output_hidden_states, self.config.output_hidden_states)
        output_attentions = _default(output_attentions, self.config.output_attentions)

        # step 1: the frozen vision tower with its experts; +1 as hidden states also include the embeddings
        feature_states = [layer + 1 for layer in self.config.feature_layers]
        vision_outputs = self.vision_model(
            pixel_values,
            output_hidden_states=True if output_hidden_states else feature_states,
            output_attentions=output_attentions,
            output_router_logits=bool(with_losses or output_router_logits),
            output_expert_codes=with_losses,
            return_dict=True,
        )
        levels = [vision_outputs.hidden_states[state] for state in feature_states]
        patch_embeds, image_embeds = self._embed_image(levels)

        # step 2: the two texts of each image's object
        text_embeds = self._embed_text(input_ids, attention_mask, prompt_state, prompt_embeds, text_embeds)
        object_ids = _resolve_object_ids(object_ids, len(text_embeds), pixel_values)
        image_texts = text_embeds[object_ids]  # (batch_size, 2, projection_dim)

        # step 3: similarities, and the losses on them, in float32
        with _full_precision(pixel_values):
            direction = image_texts[:, 1] - image_texts[:, 0]
            patch_logits = torch.stack([LOGIT_SCALE * torch.einsum("bnp,bp->bn", p, direction) for p in patch_embeds])
            grid = (self.config.grid_size, self.config.grid_size)
            patch_logits = patch_logits.unflatten(-1, grid)  # (num_maps, batch_size, grid_size, grid_size)
            anomaly_logits = ((patch_logits + 1) / 2).sum(dim=0)
            image_score = (torch.einsum("bp,bp->b", image_embeds, image_texts[:, 1]) + 1) / 2
            losses = {}
            if with_losses:
                losses = self._losses(patch_logits, image_embeds, image_texts, labels, mask_labels, vision_outputs)

        output = MoECLIPOutput(
            **losses,
            anomaly_logits=anomaly_logits,
            image_score=image_score,
            image_embeds=image_embeds,
            patch_embeds=patch_embeds,
            text_embeds=text_embeds,
            router_logits=vision_outputs["router_logits"] if output_router_logits else None,
            hidden_states=vision_outputs.hidden_states if output_hidden_states else None,
            attentions=vision_outputs.attentions if output_attentions else None,
        )
        return output if _default(return_dict, self.config.return_dict) else output.to_tuple()

    def _check_pixel_values(self, pixel_values: torch.Tensor) -> None:
        vision_config = self.config.vision_config
        num_channels, image_size = vision_config.num_channels, vision_config.image_size
        if pixel_values.shape[1:] != (num_channels, image_size, image_size):
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}, but the model reads (batch_size, {num_channels}, "
                f"{image_size}, {image_size}): prepare images with the model's processor."
            )

    def _embed_image(self, levels: list[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Turns each level's tokens into its maps' patch embeddings, and the last level's into the image embedding."""
        kernel_sizes = self.config.patch_average_kernel_sizes
        patch_embeds, tokens = [], None
        for level, hidden_states in enumerate(levels):
            patches = hidden_states[:, 1:]  # without the class token
            for index, kernel_size in enumerate(kernel_sizes):
                features = self.vision_model.post_layernorm(average_patches(patches, kernel_size))
                shared = self.config.share_patch_projections
                projection = self.patch_projections[level if shared else level * len(kernel_sizes) + index]
                patch_embeds.append(nn.functional.normalize(projection(features).float(), dim=-1))
                if index == 0:
                    tokens = features
        if self.image_head is None:
            image_embeds = patch_embeds[-len(kernel_sizes)].mean(dim=1)
        else:
            image_embeds = self.image_head(tokens)
        return tuple(patch_embeds), image_embeds

    def _embed_text(self, input_ids, attention_mask, prompt_state, prompt_embeds, text_embeds) -> torch.Tensor:
        given = {"input_ids": input_ids, "prompt_embeds": prompt_embeds, "text_embeds": text_embeds}
        received = [name for name, value in given.items() if value is not None]
        if len(received) != 1:
            raise ValueError(
                f"Pass exactly one of `input_ids`, `prompt_embeds` and `text_embeds`, received "
                f"{' and '.join(received) or 'none'}."
            )
        if text_embeds is not None:
            return text_embeds.float()
        if input_ids is not None:
            prompt_embeds = self.get_prompt_embeds(input_ids, attention_mask)
        return self.get_text_embeds(prompt_embeds, prompt_state)

    def _losses(self, patch_logits, image_embeds, image_texts, labels, mask_labels, vision_outputs) -> dict:
        losses = {}
        if mask_labels is not None:
            losses["segmentation_loss"] = self._segmentation_loss(patch_logits, mask_labels)
        if labels is not None:
            losses["classification_loss"] = classification_loss(image_embeds, image_texts, (labels != 0).long())
        total = sum(losses.values())
        experts = list(self.moe_lora_layers().values())
        if experts:
            losses["aux_loss"] = sum(load_balancing_loss(logits) for logits in vision_outputs["router_logits"])
            losses["etf_loss"] = sum(
                etf_loss(codes, layer.lora_B, layer.scaling)
                for codes, layer in zip(vision_outputs["expert_codes"], experts, strict=True)
            )
            total = total + self.config.router_aux_loss_coef * losses["aux_loss"]
            total = total + self.config.etf_loss_coef * losses["etf_loss"]
        return {"loss": total, **losses}

    def _segmentation_loss(self, patch_logits: torch.Tensor, mask_labels: torch.Tensor) -> torch.Tensor:
        image_size = self.config.vision_config.image_size
        expected = (patch_logits.shape[1], image_size, image_size)
        if mask_labels.shape != expected:
            raise ValueError(
                f"`mask_labels` has shape {tuple(mask_labels.shape)}, expected (batch_size, height, width) = {expected}."
            )
        known = (mask_labels != IGNORED_MASK).flatten(1).any(dim=1)
        return segmentation_loss(patch_logits, (mask_labels != 0).to(patch_logits.dtype), known)

    @classmethod
    def from_clip(
        cls,
        clip_name_or_path_or_model: str | os.PathLike | CLIPModel,
        *,
        image_size: int | None = None,
        hidden_act: str | None = None,
        projections_from_clip: bool = False,
        **config_fields,
    ) -> "MoECLIPForAnomalyDetection":
        """Builds a fresh model on a pretrained CLIP, in float32, its position embeddings resized once.

        Args:
            clip_name_or_path_or_model (`str`, `os.PathLike` or `CLIPModel`): Hub id, folder or model of the CLIP.
            image_size (`int`, *optional*):
                Input size in pixels, a multiple of the patch size. `None`: the largest one up to 518.
            hidden_act (`str`, *optional*): Activation of both towers. `None`: the CLIP's own.
            projections_from_clip (`bool`, *optional*, defaults to `False`):
                Whether patch projections, text adapter and image head begin as the CLIP's own projections, instead of
                at random as in the paper.
            **config_fields: Fields of [`MoECLIPConfig`]. `feature_layers` defaults to the ends of the tower's four
                quarters, `projection_dim` to the CLIP's, `base_model_revision` to the commit that a CLIP from the Hub
                is at.

        Returns:
            [`MoECLIPForAnomalyDetection`] in evaluation mode.

        Raises:
            ValueError: If the tower has fewer than 4 layers and no `feature_layers` are given, a field is wrong, or the
                CLIP's projections have another width.
        """
        if isinstance(clip_name_or_path_or_model, CLIPModel):
            clip = clip_name_or_path_or_model
        else:
            name = os.fspath(clip_name_or_path_or_model)
            revision = resolve_revision(name, config_fields.get("base_model_revision"))
            clip = load_clip(name, revision=revision)
            config_fields.setdefault("base_model_name_or_path", os.path.abspath(name) if os.path.isdir(name) else name)
            config_fields.setdefault("base_model_revision", getattr(revision, "resolved", None))  # the commit

        model = cls(config_on_clip(clip.config, image_size=image_size, hidden_act=hidden_act, **config_fields))
        model.load_state_dict(backbone_state_dict(clip, model.config), strict=False)
        if projections_from_clip:
            model.load_state_dict(projection_state_dict(clip, model.config), strict=False)
        return model.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Loads a model from safetensors, full or adapters-only; the CLIP comes back frozen.

        For adapters only, `token`, `cache_dir`, `local_files_only`, `force_download`, `dtype`, `device_map` and
        `attn_implementation` reach both the adapters' and the CLIP's load; `revision`, `subfolder` and `variant` belong
        to the adapters, and the CLIP is loaded at `config.base_model_revision`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub id or folder.
            *model_args: Passed on to transformers.
            config ([`MoECLIPConfig`], *optional*): Configuration to use instead of the stored one.
            **kwargs: As in transformers' `from_pretrained`.

        Returns:
            [`MoECLIPForAnomalyDetection`] in evaluation mode.

        Raises:
            ValueError: If the weights do not match the configuration, are no safetensors, or lack their CLIP.
        """
        if kwargs.pop("use_safetensors", True) is False:
            raise ValueError("`use_safetensors` (False) must be True: weights are loaded from safetensors only.")
        with_loading_info = kwargs.pop("output_loading_info", False)
        weights = pretrained_model_name_or_path
        # not `MoECLIPConfig`: code loaded from a folder exists once for each Auto class, and so does the class
        if not isinstance(config, PreTrainedConfig):
            source = pretrained_model_name_or_path if config is None else config
            config, unused = MoECLIPConfig.from_pretrained(source, return_unused_kwargs=True, **kwargs)
            kwargs = {**unused, **hub_arguments(kwargs)}
        if config.adapters_only and kwargs.get("state_dict") is None:
            config = copy.deepcopy(config)
            kwargs["state_dict"] = adapters_on_clip(pretrained_model_name_or_path, config, kwargs)
            weights = None
            for name in ("revision", "subfolder", "variant", "token", "cache_dir", "force_download"):
                kwargs.pop(name, None)
        with weights_errors(pretrained_model_name_or_path):
            model, loading_info = super().from_pretrained(
                weights,
                *model_args,
                config=config,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **kwargs,
            )
        check_loading_info(loading_info)
        if weights is None and pretrained_model_name_or_path is not None:
            model.name_or_path = model.config.name_or_path = os.fspath(pretrained_model_name_or_path)
        model.freeze_backbone()
        return (model, loading_info) if with_loading_info else model

    def save_pretrained(self, save_directory, adapters_only: bool | None = None, state_dict=None, **kwargs):
        """Saves the model with its active adapter as safetensors, and the code that loads it and runs its pipeline.

        Args:
            save_directory (`str` or `os.PathLike`): Folder to write, made if missing.
            adapters_only (`bool`, *optional*):
                Leave the CLIP out; it is loaded from `config.base_model_name_or_path` again. `None`: as
                `config.adapters_only` says.
            state_dict (`dict[str, torch.Tensor]`, *optional*): Weights to save instead of the model's own.
            **kwargs: As in transformers' `save_pretrained`.

        Raises:
            ValueError: If the CLIP is left out but the configuration does not name it.
        """
        # Imported here because the pipeline is built on this file; the import also makes its code travel along.
        from .pipeline_moeclip import custom_pipelines

        adapters_only = _default(adapters_only, self.config.adapters_only)
        if adapters_only and self.config.base_model_name_or_path is None:
            raise ValueError(
                "`adapters_only` (True) needs `config.base_model_name_or_path`, the Hub id or folder of the CLIP: set it "
                "or save the whole model."
            )
        state_dict = self._single_adapter(_default(state_dict, self.state_dict()), self.active_adapter)
        if adapters_only:
            state_dict = {name: tensor for name, tensor in state_dict.items() if is_adapter_key(name)}
        save_directory = os.path.abspath(save_directory)
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", os.path.basename(save_directory))
        os.makedirs(save_directory, exist_ok=True)
        self.config.custom_pipelines = custom_pipelines()
        configured, self.config.adapters_only = self.config.adapters_only, adapters_only
        try:
            # written aside and moved, so that an interruption leaves no half-written file under its final name
            with tempfile.TemporaryDirectory(dir=save_directory, prefix=".saving-") as scratch:
                super().save_pretrained(scratch, state_dict=state_dict, **kwargs)
                written = os.listdir(scratch)
                for name in written:
                    os.replace(os.path.join(scratch, name), os.path.join(save_directory, name))
            if kwargs.get("is_main_process", True):
                remove_earlier_weights(save_directory, written, kwargs.get("variant"))
        finally:
            self.config.adapters_only = configured


def _default(value, default):
    return default if value is None else value


def _full_precision(tensor: torch.Tensor):
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def _resolve_object_ids(object_ids: torch.Tensor | None, num_objects: int, pixel_values: torch.Tensor) -> torch.Tensor:
    batch_size = len(pixel_values)
    if object_ids is not None:
        if object_ids.shape != (batch_size,):
            raise ValueError(f"`object_ids` has shape {tuple(object_ids.shape)}, expected ({batch_size},).")
        is_known = (object_ids >= 0) & (object_ids < num_objects)
        if not torch.compiler.is_compiling() and not is_known.all():
            raise ValueError(
                f"`object_ids` ({object_ids.tolist()}) must be rows of the {num_objects} objects that are described, "
                f"0 to {num_objects - 1}."
            )
        return object_ids
    if num_objects == 1:
        return torch.zeros(batch_size, dtype=torch.long, device=pixel_values.device)
    if num_objects == batch_size:
        return torch.arange(batch_size, device=pixel_values.device)
    raise ValueError(
        f"`object_ids` is needed to match {batch_size} images with {num_objects} objects: pass the row of each image's "
        f"object."
    )


MoECLIPForAnomalyDetection.register_for_auto_class("AutoModel")
if IS_INSTALLED_PACKAGE:
    AutoModel.register(MoECLIPConfig, MoECLIPForAnomalyDetection, exist_ok=True)

__all__ = ["MoECLIPForAnomalyDetection", "MoECLIPOutput", "MoECLIPVisionModel"]
