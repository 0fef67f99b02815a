"""Finding and reading the checkpoints of a run: adapters only, complete ones only."""

import copy
import json
import os
import re

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ..backbone_moeclip import is_adapter_key
from ..configuration_moeclip import MoECLIPConfig


TRAINER_STATE = "trainer_state.json"
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"

_IDENTITY_FIELDS = (
    "projection_dim",
    "feature_layers",
    "patch_average_kernel_sizes",
    "share_patch_projections",
    "patch_projection_act",
    "use_image_head",
)
_VISION_FIELDS = ("hidden_size", "num_hidden_layers", "patch_size", "image_size", "hidden_act")


def is_complete(checkpoint: str) -> bool:
    """Tells whether a run can continue from a folder: all its parts are there, the trainer state, the last, readable.

    Args:
        checkpoint (`str`): Path of a folder.

    Returns:
        `bool`: False for a folder that a killed run left half written, or that is no checkpoint.
    """
    try:
        with open(os.path.join(checkpoint, TRAINER_STATE), encoding="utf-8") as file:
            json.load(file)
    except (OSError, ValueError):
        return False
    return all(os.path.isfile(os.path.join(checkpoint, name)) for name in (WEIGHTS, OPTIMIZER, SCHEDULER))


def find_last_checkpoint(output_dir: str) -> str | None:
    """Finds the complete checkpoint of the highest step.

    Args:
        output_dir (`str`): The run's folder, with `checkpoint-N` folders in it.

    Returns:
        `str` or `None`: Path of the checkpoint, None if there is no complete one.
    """
    if not os.path.isdir(output_dir):
        return None
    steps = sorted(
        (int(match.group(1)) for name in os.listdir(output_dir) if (match := re.fullmatch(r"checkpoint-(\d+)", name))),
        reverse=True,
    )
    folders = (os.path.join(output_dir, f"checkpoint-{step}") for step in steps)
    return next(filter(is_complete, folders), None)


def save_adapters(model: PreTrainedModel, folder: str) -> None:
    """Writes a model's adapters and configuration, without the frozen CLIP.

    `from_pretrained` reads the folder if the model's configuration names its CLIP; a model built on a CLIP in memory
    has none to name, and its checkpoints are for the trainer alone.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model.
        folder (`str`): Folder to write, made if missing.
    """
    os.makedirs(folder, exist_ok=True)
    adapters = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if is_adapter_key(name)}
    save_file(adapters, os.path.join(folder, WEIGHTS), metadata={"format": "pt"})
    config = copy.deepcopy(model.config)
    config.adapters_only = True
    config.save_pretrained(folder)


def load_adapters(model: PreTrainedModel, folder: str) -> None:
    """Reads the adapters of a checkpoint into a model that already has its CLIP.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model, of the configuration that the checkpoint was written with.
        folder (`str`): The checkpoint.

    Raises:
        ValueError: If the checkpoint is of another configuration, or its weights are incomplete.
    """
    stored, own = _identity(type(model.config).from_pretrained(folder)), _identity(model.config)
    for name, value in own.items():
        if stored[name] != value:
            raise ValueError(
                f"The checkpoint {folder} has `{name}` {stored[name]!r}, the model {value!r}: continue with the model "
                "that the run was started with."
            )
    weights = load_file(os.path.join(folder, WEIGHTS))
    adapters = {name: tensor for name, tensor in weights.items() if is_adapter_key(name)}
    missing = sorted({name for name in model.state_dict() if is_adapter_key(name)} ^ set(adapters))
    if missing:
        raise ValueError(f"The checkpoint {folder} does not match the model: {missing[0]!r} is in one of them only.")
    model.load_state_dict(adapters, strict=False)


def _identity(config: MoECLIPConfig) -> dict:
    """The values that make a configuration's adapters fit one model and no other; loss weights may change in a run."""
    identity = {"moe_lora": config.moe_lora is not None}
    identity |= {name: getattr(config, name) for name in _IDENTITY_FIELDS}
    identity |= {name: getattr(config.vision_config, name) for name in _VISION_FIELDS}
    for name, value in (config.moe_lora or {}).items():
        if name not in ("lora_dropout", "seed"):
            identity[f"moe_lora.{name}"] = value
    return identity
