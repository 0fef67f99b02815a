"""Converts a checkpoint of the MoECLIP authors' release, and the OpenAI-named CLIP it was trained on, into a model.

What the checkpoint tells is read off its tensors: number of experts and rank, whether the first matrices are split
(FOFS) or trained, whether projections are shared and activated. What it does not tell (scale, routed experts, layers,
windows, activation of the CLIP) is an argument, with the release's defaults.
"""

import re
from collections.abc import Mapping, Sequence

import torch

from .backbone_moeclip import resize_position_embeddings
from .configuration_moeclip import MoECLIPConfig
from .experts_moeclip import split_features
from .modeling_moeclip import MoECLIPForAnomalyDetection


# CLIP's attention heads are this wide in every published size; the checkpoints do not record it.
HEAD_WIDTH = 64

# OpenAI's names, and those of transformers' CLIPModel. `{i}` is the layer.
TOWER_LAYER_NAMES = {
    "attn.out_proj.weight": "self_attn.out_proj.weight",
    "attn.out_proj.bias": "self_attn.out_proj.bias",
    "ln_1.weight": "layer_norm1.weight",
    "ln_1.bias": "layer_norm1.bias",
    "ln_2.weight": "layer_norm2.weight",
    "ln_2.bias": "layer_norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}
CLIP_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
# Tensors of a CLIP that MoECLIP has no use for: its own projections and temperature, and what scripted archives add.
UNUSED_CLIP_NAMES = {
    "visual.proj",
    "text_projection",
    "logit_scale",
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
}
IMAGE_HEAD_NAMES = {
    "det_proj.ln.weight": "image_head.layer_norm.weight",
    "det_proj.ln.bias": "image_head.layer_norm.bias",
    "det_proj.adapter.0.weight": "image_head.depthwise_conv.weight",
    "det_proj.adapter.2.weight": "image_head.pointwise_conv.weight",
}


def convert_original(
    clip_state_dict: Mapping[str, torch.Tensor],
    checkpoint: Mapping[str, Mapping[str, torch.Tensor]],
    *,
    image_size: int = 518,
    feature_layers: Sequence[int] = (5, 11, 17, 23),
    layers_to_transform: Sequence[int] = (5, 11, 17, 23),
    lora_alpha: float = 16,
    lora_dropout: float = 0.05,
    num_experts_per_tok: int = 2,
    patch_average_kernel_sizes: Sequence[int] = (1, 3, 5),
    hidden_act: str = "gelu",
) -> MoECLIPForAnomalyDetection:
    """Builds a model from the authors' checkpoint and the CLIP under it.

    Args:
        clip_state_dict (`Mapping[str, torch.Tensor]`): CLIP weights under OpenAI's names.
        checkpoint (`Mapping`): The authors' checkpoint, with the entries `"text_adapter"` and `"image_adapter"`.
        image_size (`int`, *optional*, defaults to 518): Input size in pixels.
        feature_layers (`Sequence[int]`, *optional*, defaults to `(5, 11, 17, 23)`): 0-based layers of the maps.
        layers_to_transform (`Sequence[int]`, *optional*, defaults to `(5, 11, 17, 23)`):
            0-based layers with experts, in the order of the checkpoint's `moe_adapters`.
        lora_alpha (`float`, *optional*, defaults to 16): Expert outputs are scaled by `lora_alpha / r`.
        lora_dropout (`float`, *optional*, defaults to 0.05): Dropout on the experts' input, if trained further.
        num_experts_per_tok (`int`, *optional*, defaults to 2): Experts per token.
        patch_average_kernel_sizes (`Sequence[int]`, *optional*, defaults to `(1, 3, 5)`): Averaging windows.
        hidden_act (`str`, *optional*, defaults to `"gelu"`): Activation of both towers; the release uses exact GELU.

    Returns:
        [`MoECLIPForAnomalyDetection`] in evaluation mode, float32.

    Raises:
        ValueError: If tensors are missing, left over, or do not fit the arguments.
    """
    for name in ("text_adapter", "image_adapter"):
        if not isinstance(checkpoint.get(name), Mapping):
            raise ValueError(
                f"`checkpoint` has no {name!r} (its entries: {', '.join(map(str, checkpoint)) or 'none'}): pass the "
                f"authors' checkpoint file."
            )
    image_adapter = dict(checkpoint["image_adapter"])
    moe_lora = _read_moe_lora(image_adapter)
    if moe_lora is not None:
        moe_lora.update(
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            num_experts_per_tok=num_experts_per_tok,
            layers_to_transform=list(layers_to_transform),
        )
    num_layers, num_maps = len(feature_layers), len(feature_layers) * len(patch_average_kernel_sizes)
    text_weight = _tensor(checkpoint["text_adapter"], "0.fc.0.weight", "checkpoint['text_adapter']")
    config = MoECLIPConfig(
        vision_config=_vision_config(clip_state_dict, image_size, hidden_act),
        text_config=_text_config(clip_state_dict, hidden_act),
        projection_dim=text_weight.shape[0],
        moe_lora=moe_lora,
        feature_layers=tuple(feature_layers),
        patch_average_kernel_sizes=tuple(patch_average_kernel_sizes),
        share_patch_projections=_projections_are_shared(image_adapter, num_layers, num_maps),
        patch_projection_act="leaky_relu" if "seg_proj.0.fc.0.weight" in image_adapter else None,
        use_image_head="det_proj.ln.weight" in image_adapter,
    )
    state_dict = {
        **_convert_clip(clip_state_dict, config),
        **_convert_image_adapter(image_adapter, config, layers_to_transform),
        "text_adapter.weight": text_weight,
    }
    model = MoECLIPForAnomalyDetection(config)
    _load(model, state_dict)
    return model.eval()


def _tensor(tensors: Mapping[str, torch.Tensor], name: str, source: str) -> torch.Tensor:
    if name not in tensors:
        raise ValueError(f"`{source}` lacks the tensor {name!r}: it is no file of the expected kind.")
    return tensors[name]


def _count(tensors: Mapping[str, torch.Tensor], pattern: str) -> int:
    """One more than the largest number that `pattern` captures among the names."""
    numbers = [int(match.group(1)) for name in tensors if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def _vision_config(clip: Mapping[str, torch.Tensor], image_size: int, hidden_act: str) -> dict:
    patches = _tensor(clip, "visual.conv1.weight", "clip_state_dict")  # (hidden_size, 3, patch_size, patch_size)
    return {
        "hidden_size": patches.shape[0],
        "intermediate_size": _tensor(clip, "visual.transformer.resblocks.0.mlp.c_fc.bias", "clip_state_dict").shape[0],
        "num_hidden_layers": _count(clip, r"visual\.transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": patches.shape[0] // HEAD_WIDTH,
        "num_channels": patches.shape[1],
        "patch_size": patches.shape[2],
        "image_size": image_size,
        "hidden_act": hidden_act,
        "projection_dim": _tensor(clip, "visual.proj", "clip_state_dict").shape[1],
    }


def _text_config(clip: Mapping[str, torch.Tensor], hidden_act: str) -> dict:
    vocab_size, hidden_size = _tensor(clip, "token_embedding.weight", "clip_state_dict").shape
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": _tensor(clip, "transformer.resblocks.0.mlp.c_fc.bias", "clip_state_dict").shape[0],
        "num_hidden_layers": _count(clip, r"transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": hidden_size // HEAD_WIDTH,
        "max_position_embeddings": _tensor(clip, "positional_embedding", "clip_state_dict").shape[0],
        "hidden_act": hidden_act,
        "projection_dim": _tensor(clip, "text_projection", "clip_state_dict").shape[1],
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": 0,
    }


def _read_moe_lora(image_adapter: Mapping[str, torch.Tensor]) -> dict | None:
    num_experts = _count(image_adapter, r"moe_adapters\.0\.experts\.(\d+)\.")
    if num_experts == 0:
        return None
    first = _tensor(image_adapter, "moe_adapters.0.experts.0.lora_A.weight", "checkpoint['image_adapter']")
    r, hidden_size = first.shape
    return {
        "r": r,
        "num_experts": num_experts,
        "orthogonal_split": all(
            _is_split(_stack_experts(image_adapter, adapter, "lora_A"), hidden_size)
            for adapter in range(_count(image_adapter, r"moe_adapters\.(\d+)\."))
        ),
    }


def _is_split(lora_a: torch.Tensor, hidden_size: int) -> bool:
    """Whether each expert's matrix, of `(num_experts, r, hidden_size)`, is zero outside the expert's own chunk."""
    outside = torch.ones_like(lora_a, dtype=torch.bool)
    start = 0
    for expert, size in enumerate(split_features(hidden_size, lora_a.shape[0])):
        outside[expert, :, start : start + size] = False
        start += size
    return not lora_a[outside].any()


def _stack_experts(image_adapter: Mapping[str, torch.Tensor], adapter: int, matrix: str) -> torch.Tensor:
    num_experts = _count(image_adapter, rf"moe_adapters\.{adapter}\.experts\.(\d+)\.")
    names = [f"moe_adapters.{adapter}.experts.{expert}.{matrix}.weight" for expert in range(num_experts)]
    return torch.stack([_tensor(image_adapter, name, "checkpoint['image_adapter']") for name in names])


def _projections_are_shared(image_adapter: Mapping[str, torch.Tensor], num_layers: int, num_maps: int) -> bool:
    num_projections = _count(image_adapter, r"seg_proj\.(\d+)\.")
    if num_projections not in (num_layers, num_maps):
        raise ValueError(
            f"`checkpoint` has {num_projections} patch projections, but {num_layers} `feature_layers` need {num_layers} "
            f"shared or, with the windows of `patch_average_kernel_sizes`, {num_maps} separate ones."
        )
    return num_projections == num_layers


def _convert_clip(clip: Mapping[str, torch.Tensor], config: MoECLIPConfig) -> dict[str, torch.Tensor]:
    converted = {}
    for name, tensor in clip.items():
        if name in CLIP_NAMES:
            converted[CLIP_NAMES[name]] = tensor
        elif name not in UNUSED_CLIP_NAMES:
            converted.update(_convert_tower_layer(name, tensor))
    positions = CLIP_NAMES["visual.positional_embedding"]
    converted[positions] = resize_position_embeddings(
        _tensor(converted, positions, "clip_state_dict").float(), config.grid_size
    )
    return converted


def _convert_tower_layer(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    match = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name)
    if match is None:
        raise ValueError(f"`clip_state_dict` has the unknown tensor {name!r}: pass CLIP weights under OpenAI's names.")
    visual, layer, rest = match.groups()
    prefix = f"{'vision_model' if visual else 'text_model'}.encoder.layers.{layer}"
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = rest.rpartition("_")[2]
        # OpenAI stacks the three projections along the output
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{part}_proj.{kind}": chunk for part, chunk in parts}
    if rest not in TOWER_LAYER_NAMES:
        raise ValueError(f"`clip_state_dict` has the unknown tensor {name!r}: pass CLIP weights under OpenAI's names.")
    return {f"{prefix}.{TOWER_LAYER_NAMES[rest]}": tensor}


def _convert_image_adapter(
    image_adapter: dict[str, torch.Tensor], config: MoECLIPConfig, layers_to_transform: Sequence[int]
) -> dict[str, torch.Tensor]:
    num_adapters = _count(image_adapter, r"moe_adapters\.(\d+)\.")
    if config.moe_lora is not None and num_adapters != len(layers_to_transform):
        raise ValueError(
            f"`layers_to_transform` {tuple(layers_to_transform)} must name {num_adapters} layers, one for each of the "
            f"checkpoint's `moe_adapters`."
        )
    converted = {}
    for adapter, layer in zip(range(num_adapters), layers_to_transform, strict=False):
        prefix = f"vision_model.encoder.layers.{layer}.moe_lora.moe_lora_experts.default"
        gate = f"moe_adapters.{adapter}.gate.weight"
        converted[f"{prefix}.router"] = _tensor(image_adapter, gate, "checkpoint['image_adapter']")
        converted[f"{prefix}.lora_A"] = _stack_experts(image_adapter, adapter, "lora_A")
        converted[f"{prefix}.lora_B"] = _stack_experts(image_adapter, adapter, "lora_B")
    for name, tensor in image_adapter.items():
        if name in IMAGE_HEAD_NAMES:
            converted[IMAGE_HEAD_NAMES[name]] = tensor
        elif match := re.fullmatch(r"seg_proj\.(\d+)\.fc(?:\.0)?\.weight", name):
            converted[f"patch_projections.{match.group(1)}.weight"] = tensor
        elif not re.fullmatch(r"moe_adapters\.\d+\.(gate|experts\.\d+\.lora_[AB])\.weight", name):
            raise ValueError(f"`checkpoint['image_adapter']` has the unknown tensor {name!r}.")
    return converted


def _load(model: MoECLIPForAnomalyDetection, state_dict: dict[str, torch.Tensor]) -> None:
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - state_dict.keys()), sorted(state_dict.keys() - expected.keys())
    if missing or unexpected:
        problem = f"gives no {missing[0]!r}" if missing else f"gives a surplus {unexpected[0]!r}"
        raise ValueError(f"`checkpoint` does not fit the arguments: it {problem}.")
    for name, tensor in state_dict.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"`checkpoint` does not fit the arguments: {name!r} has shape {tuple(tensor.shape)} instead of "
                f"{tuple(expected[name].shape)}."
            )
    model.load_state_dict(state_dict)
