"""The frozen CLIP under the adapters: its weights at the model's input size, and checkpoints that leave it out."""

import contextlib
import math
import os
import re
from collections.abc import Container, Iterator, Mapping

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPConfig, CLIPModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from .configuration_moeclip import MoECLIPConfig


BACKBONE_PREFIXES = ("vision_model.", "text_model.")
# What chooses files on the Hub, in `from_pretrained` and `load_adapter` alike.
LOADING_ARGUMENTS = (
    "revision",
    "subfolder",
    "variant",
    "token",
    "cache_dir",
    "force_download",
    "local_files_only",
)
# What a tower's configuration records of how it is run rather than of what it is.
RUNTIME_KEYS = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures"}
LARGEST_DEFAULT_IMAGE_SIZE = 518


def is_adapter_key(name: str) -> bool:
    """Tells the adapters' tensors (experts, projections, image head, text adapter) from the frozen CLIP's.

    Args:
        name (`str`): Name of a tensor in the state dict.

    Returns:
        `bool`: Whether the tensor belongs to the adapters.
    """
    return not name.startswith(BACKBONE_PREFIXES) or ".moe_lora." in name


def resize_position_embeddings(weight: torch.Tensor, grid_size: int) -> torch.Tensor:
    """Resizes a vision tower's position embeddings to another patch grid: bicubic with antialias, class token kept.

    Args:
        weight (`torch.Tensor` of shape `(1 + old_grid_size ** 2, hidden_size)`): Position embeddings, class first.
        grid_size (`int`): Patches along one side of the new grid.

    Returns:
        `torch.Tensor` of shape `(1 + grid_size ** 2, hidden_size)`, in the input's dtype.
    """
    old_grid_size = math.isqrt(weight.shape[0] - 1)
    if old_grid_size == grid_size:
        return weight
    grid = weight[1:].float().unflatten(0, (old_grid_size, old_grid_size)).permute(2, 0, 1)
    grid = nn.functional.interpolate(
        grid.unsqueeze(0), size=(grid_size, grid_size), mode="bicubic", antialias=True, align_corners=False
    )
    patches = grid[0].permute(1, 2, 0).flatten(0, 1)  # (grid_size ** 2, hidden_size)
    return torch.cat([weight[:1], patches.to(weight.dtype)])


def default_image_size(patch_size: int) -> int:
    """The input size of a fresh model: the largest multiple of the patch up to 518 pixels.

    Args:
        patch_size (`int`): Side of a patch in pixels.

    Returns:
        `int`: Side of the image in pixels.
    """
    return LARGEST_DEFAULT_IMAGE_SIZE // patch_size * patch_size


def default_feature_layers(num_layers: int) -> tuple[int, ...]:
    """The layers that a fresh model reads: the ends of the tower's four quarters.

    Args:
        num_layers (`int`): Number of layers of the vision tower.

    Returns:
        `tuple[int, ...]`: four 0-based layers.

    Raises:
        ValueError: If the tower has fewer than 4 layers.
    """
    if num_layers < 4:
        raise ValueError(
            f"`feature_layers` is needed for a vision tower of {num_layers} layers: the default is the ends of four "
            f"quarters of at least 4."
        )
    return tuple(math.ceil(num_layers * quarter / 4) - 1 for quarter in range(1, 5))


def config_on_clip(
    clip_config: CLIPConfig, *, image_size: int | None = None, hidden_act: str | None = None, **config_fields
) -> MoECLIPConfig:
    """Makes the configuration of a fresh model on a CLIP.

    Args:
        clip_config (`CLIPConfig`): The CLIP's configuration.
        image_size (`int`, *optional*): Input size in pixels. `None`: the largest multiple of the patch up to 518.
        hidden_act (`str`, *optional*): Activation of both towers. `None`: the CLIP's own.
        **config_fields: Fields of [`MoECLIPConfig`]. `feature_layers` defaults to the ends of the tower's four
            quarters, `projection_dim` to the CLIP's.

    Returns:
        [`MoECLIPConfig`]: The configuration.

    Raises:
        ValueError: If the tower has fewer than 4 layers and no `feature_layers` are given, or a field is wrong.
    """
    vision_config, text_config = clip_config.vision_config.to_dict(), clip_config.text_config.to_dict()
    for tower_config in (vision_config, text_config):
        tower_config.pop("dtype", None)  # a tower would be built in it
    vision_config["image_size"] = default_image_size(vision_config["patch_size"]) if image_size is None else image_size
    if hidden_act is not None:
        vision_config["hidden_act"] = text_config["hidden_act"] = hidden_act
    if "feature_layers" not in config_fields:
        config_fields["feature_layers"] = default_feature_layers(vision_config["num_hidden_layers"])
    config_fields.setdefault("projection_dim", clip_config.projection_dim)
    return MoECLIPConfig(vision_config=vision_config, text_config=text_config, **config_fields)


def load_clip(name: str, **kwargs) -> CLIPModel:
    """Loads a CLIP with both towers, in float32.

    Args:
        name (`str`): Hub id or folder.
        **kwargs: Arguments of transformers' `from_pretrained`; those that are None are left out.

    Returns:
        `CLIPModel`: The CLIP.

    Raises:
        ValueError: If a part of the CLIP is missing.
    """
    # float32, since the adapters are trained on it and positions are resized in it
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    with weights_errors(name):
        clip, loading_info = CLIPModel.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **kwargs
        )
    if loading_info["missing_keys"]:
        raise ValueError(
            f"{name!r} is no complete CLIP: it lacks {min(loading_info['missing_keys'])!r}. Name a CLIPModel with both "
            f"towers, such as 'openai/clip-vit-large-patch14-336'."
        )
    return clip


@contextlib.contextmanager
def weights_errors(name_or_path) -> Iterator[None]:
    """Says which weights cannot be read, and that no other format than safetensors is.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder of the weights.

    Raises:
        ValueError: If they are damaged, or not there in safetensors.
    """
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"The weights of {name_or_path}: a file is damaged or no safetensors file ({error}): fetch or save it again."
        ) from error
    except OSError as error:
        # transformers' words for a missing file, which also end in the advice to read a pickle instead
        if SAFE_WEIGHTS_NAME in str(error) and "file named" in str(error):
            raise ValueError(
                f"{name_or_path} has no weights in safetensors ({SAFE_WEIGHTS_NAME}): weights of another format, such as "
                "a pickle (pytorch_model.bin), are not read."
            ) from error
        raise


def backbone_state_dict(clip: CLIPModel, config: MoECLIPConfig) -> dict[str, torch.Tensor]:
    """Takes the towers out of a CLIP, with position embeddings for the model's own input size.

    Args:
        clip (`CLIPModel`): The CLIP.
        config ([`MoECLIPConfig`]): The model's configuration.

    Returns:
        `dict[str, torch.Tensor]`: weights of `vision_model` and `text_model`.
    """
    state_dict = {name: tensor for name, tensor in clip.state_dict().items() if name.startswith(BACKBONE_PREFIXES)}
    positions = "vision_model.embeddings.position_embedding.weight"
    state_dict[positions] = resize_position_embeddings(state_dict[positions], config.grid_size)
    return state_dict


def projection_state_dict(clip: CLIPModel, config: MoECLIPConfig) -> dict[str, torch.Tensor]:
    """Takes the projections out of a CLIP, by which its patches and texts can be compared before any training.

    Args:
        clip (`CLIPModel`): The CLIP.
        config ([`MoECLIPConfig`]): The model's configuration.

    Returns:
        `dict[str, torch.Tensor]`: weights of each of the `patch_projections`, of the `text_adapter` and of the
        `image_head`'s convolutions, the first of which passes on each patch as it is.

    Raises:
        ValueError: If the model's embeddings have another width than the CLIP's.
    """
    if config.projection_dim != clip.config.projection_dim:
        raise ValueError(
            f"`projections_from_clip` (True) needs `projection_dim` ({config.projection_dim}) to be the CLIP's "
            f"({clip.config.projection_dim}): leave one of the two out."
        )
    visual = clip.visual_projection.weight  # (projection_dim, hidden_size)
    state_dict = {f"patch_projections.{index}.weight": visual for index in range(config.num_patch_projections)}
    state_dict["text_adapter.weight"] = clip.text_projection.weight
    if config.use_image_head:
        state_dict["image_head.depthwise_conv.weight"] = visual.new_tensor([0, 1, 0]).expand(visual.shape[1], 1, 3)
        state_dict["image_head.pointwise_conv.weight"] = visual[..., None]
    return state_dict


def hub_arguments(kwargs: Mapping) -> dict:
    """Picks the arguments that choose files on the Hub.

    Args:
        kwargs (`Mapping`): Arguments of `from_pretrained`.

    Returns:
        `dict`: those of them that say where files are found, without the weights' `variant`.
    """
    return {name: kwargs[name] for name in LOADING_ARGUMENTS if name in kwargs and name != "variant"}


def adapters_on_clip(name_or_path, config: MoECLIPConfig, kwargs: Mapping) -> dict[str, torch.Tensor]:
    """Reads an adapters-only checkpoint and the CLIP it names into one state dict.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder of the adapters.
        config ([`MoECLIPConfig`]):
            The adapters' configuration; a relative `base_model_name_or_path` in it is made absolute.
        kwargs (`Mapping`): Arguments of `from_pretrained`.

    Returns:
        `dict[str, torch.Tensor]`: the whole model's weights.

    Raises:
        ValueError: If the adapters' file is damaged, or the CLIP is not named or not whole.
        OSError: If the adapters or the CLIP are not there.
    """
    with open_weights(name_or_path, kwargs) as weights:
        adapters = {name: file.get_tensor(name) for name, file in weights.items()}
    config.base_model_name_or_path = resolve_base(config.base_model_name_or_path, name_or_path, kwargs)
    arguments = hub_arguments(kwargs)
    shared = {key: value for key, value in arguments.items() if key not in ("revision", "subfolder")}
    try:
        clip = load_clip(config.base_model_name_or_path, revision=config.base_model_revision, **shared)
    except OSError as error:
        raise OSError(
            f"{name_or_path} holds adapters only, and the CLIP under them, {config.base_model_name_or_path}, cannot be "
            f"loaded: {error}"
        ) from error
    backbone = backbone_state_dict(clip, config)
    return {**backbone, **adapters}


@contextlib.contextmanager
def open_weights(name_or_path, kwargs: Mapping):
    """Opens the weights of a model in safetensors, one file or shards, whose tensors are then read one by one.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder.
        kwargs (`Mapping`): Arguments of `from_pretrained`.

    Yields:
        `dict[str, safetensors.safe_open]`: For each tensor's name the open file that holds it.

    Raises:
        ValueError: If a file is damaged, or there are no weights in safetensors.
        OSError: If there is no such repository, or it cannot be reached.
    """
    with weights_errors(name_or_path), contextlib.ExitStack() as opened:
        paths = _find_weights(name_or_path, kwargs.get("variant"), hub_arguments(kwargs))
        files = [opened.enter_context(safe_open(path, framework="pt")) for path in paths]
        yield {name: file for file in files for name in file.keys()}  # noqa: SIM118 - the file is no dict


def _find_weights(name_or_path, variant: str | None, arguments: dict) -> list[str]:
    """Paths of the safetensors file or, where there is an index instead, of its shards."""
    index = cached_file(
        name_or_path,
        _name_of_variant(SAFE_WEIGHTS_INDEX_NAME, variant),
        _raise_exceptions_for_missing_entries=False,
        **arguments,
    )
    if index is not None:
        paths, _ = get_checkpoint_shard_files(name_or_path, index, **arguments)
        return paths
    return [cached_file(name_or_path, _name_of_variant(SAFE_WEIGHTS_NAME, variant), **arguments)]


def _name_of_variant(filename: str, variant: str | None) -> str:
    stem, _, extension = filename.rpartition(".")
    return filename if variant is None else f"{stem}.{variant}.{extension}"


def remove_earlier_weights(folder: str | os.PathLike, written: Container[str], variant: str | None) -> None:
    """Removes what an earlier save in more or fewer shards has left: a later load would take it for the weights.

    Args:
        folder (`str` or `os.PathLike`): Folder of the model.
        written (`Container[str]`): Names of the files that were just written.
        variant (`str`, *optional*): Variant of the weights; files of other variants stay.
    """
    file, index = (_name_of_variant(name, variant) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    stem, _, extension = file.rpartition(".")
    weights = rf"{re.escape(stem)}(-\d+-of-\d+)?\.{extension}|{re.escape(index)}"
    for name in os.listdir(folder):
        if re.fullmatch(weights, name) and name not in written:
            os.remove(os.path.join(folder, name))


def resolve_base(base: str | None, name_or_path, kwargs: Mapping) -> str:
    """Finds the CLIP that adapters name.

    Args:
        base (`str`, *optional*): `base_model_name_or_path` of the adapters' configuration.
        name_or_path (`str` or `os.PathLike`): Hub id or folder of the adapters.
        kwargs (`Mapping`): Arguments of `from_pretrained`.

    Returns:
        `str`: Hub id, or absolute path for a base relative to the adapters' folder.

    Raises:
        ValueError: If there is no base, or a relative one of adapters that are not in a local folder.
    """
    if base is None:
        raise ValueError(
            f"{name_or_path} holds adapters only, and its config.json names no `base_model_name_or_path`: add the Hub id "
            f"or folder of the CLIP."
        )
    if not base.startswith(("./", "../")):
        return base
    folder = os.path.join(os.fspath(name_or_path), kwargs.get("subfolder", ""))
    if not os.path.isdir(folder):
        raise ValueError(
            f"`base_model_name_or_path` ({base}) is relative to the adapters' folder, but {name_or_path} is no local "
            f"folder: give the Hub id of the CLIP."
        )
    return os.path.normpath(os.path.join(os.path.abspath(folder), base))


def read_adapters(name_or_path, kwargs: Mapping) -> dict[str, torch.Tensor]:
    """Reads the adapters' tensors of a saved model, adapters-only or full.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder.
        kwargs (`Mapping`): Arguments of `from_pretrained`.

    Returns:
        `dict[str, torch.Tensor]`: experts, projections, image head and text adapter.

    Raises:
        ValueError: If the file is damaged.
        OSError: If there is no such file.
    """
    with open_weights(name_or_path, kwargs) as weights:
        return {name: file.get_tensor(name) for name, file in weights.items() if is_adapter_key(name)}


def check_same_backbone(model: nn.Module, config: MoECLIPConfig, name_or_path, kwargs: Mapping) -> None:
    """Refuses adapters that were trained on another CLIP than the model's.

    Towers of another shape, input size or activation are always refused. A full checkpoint's CLIP is compared tensor by
    tensor; adapters-only ones by the name and revision of their CLIP, where both sides have these.

    Args:
        model (`torch.nn.Module`): A [`MoECLIPForAnomalyDetection`].
        config ([`MoECLIPConfig`]): The adapters' configuration; a relative base in it is made absolute.
        name_or_path (`str` or `os.PathLike`): Hub id or folder of the adapters.
        kwargs (`Mapping`): Arguments of `from_pretrained`.

    Raises:
        ValueError: If the CLIP is another one.
    """
    advice = "Adapters share one CLIP at one input size: load them as a model of their own."
    for tower in ("vision_config", "text_config"):
        own, other = (getattr(side, tower).to_dict() for side in (model.config, config))
        for key in sorted((own.keys() | other.keys()) - RUNTIME_KEYS):
            if own.get(key) != other.get(key):
                raise ValueError(
                    f"{name_or_path} has `{tower}.{key}` {other.get(key)!r}, the model {own.get(key)!r}. {advice}"
                )
    if not config.adapters_only:
        _check_backbone_tensors(model, name_or_path, kwargs, advice)
        return
    config.base_model_name_or_path = resolve_base(config.base_model_name_or_path, name_or_path, kwargs)
    for key in ("base_model_name_or_path", "base_model_revision"):
        own, other = getattr(model.config, key), getattr(config, key)
        if own is not None and other is not None and not _same_place(own, other):
            raise ValueError(f"{name_or_path} was trained on `{key}` {other!r}, the model is on {own!r}. {advice}")


def _check_backbone_tensors(model: nn.Module, name_or_path, kwargs: Mapping, advice: str) -> None:
    own = {name: tensor for name, tensor in model.state_dict().items() if not is_adapter_key(name)}
    with open_weights(name_or_path, kwargs) as weights:
        for name, tensor in own.items():
            if name not in weights or not _same_values(tensor.cpu(), weights[name].get_tensor(name)):
                raise ValueError(f"{name_or_path} has another {name!r} than the model. {advice}")


def _same_values(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether one tensor is the other in another precision."""
    return torch.equal(first, second.to(first.dtype)) or torch.equal(first.to(second.dtype), second)


def _same_place(first: str, second: str) -> bool:
    return first == second or (os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second))


def check_loading_info(loading_info: Mapping) -> None:
    """Refuses a checkpoint that does not match its configuration.

    Args:
        loading_info (`Mapping`): What transformers' `from_pretrained` reports of the weights.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    for kind, problem in (
        ("missing_keys", "lacks"),
        ("unexpected_keys", "has the unknown"),
        ("mismatched_keys", "has another shape of"),
    ):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in loading_info[kind])
        if keys:
            raise ValueError(
                f"The checkpoint does not match its config: it {problem} {keys[0]!r} ({len(keys)} such tensors). Use the "
                f"config.json that was saved with the weights."
            )
