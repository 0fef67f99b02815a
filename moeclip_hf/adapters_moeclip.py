"""Several adapters on one frozen CLIP, switched by name, so that one backbone in memory serves several domains.

A MoECLIP adapter is everything that was trained together: experts, patch projections, image head and text adapter, with
the part of the configuration that describes them. The active one works; the others wait in memory.
"""

import copy
import os
from dataclasses import fields

import torch
from torch import nn

from .backbone_moeclip import LOADING_ARGUMENTS, check_loading_info, check_same_backbone, is_adapter_key, read_adapters
from .configuration_moeclip import MoECLIPConfig


DEFAULT_ADAPTER = "default"
HEADS = ("patch_projections", "image_head", "text_adapter")
TOWER_CONFIGS = ("vision_config", "text_config")


class MoECLIPAdapterMixin:
    """Loads, switches, saves and deletes whole MoECLIP adapters by name.

    These methods take the place of those that `PreTrainedModel` has for single PEFT adapters, which know nothing of the
    projections, the image head and the text adapter. A model starts with one adapter, called `"default"`.
    """

    def _start_adapters(self) -> None:
        self._active_adapter = DEFAULT_ADAPTER
        self._inactive_configs: dict[str, MoECLIPConfig] = {}
        self.inactive_heads = nn.ModuleDict()  # by adapter; part of the model, so that they move with it

    @property
    def active_adapter(self) -> str:
        """Name of the adapter that works."""
        return self._active_adapter

    @property
    def adapter_names(self) -> list[str]:
        """Names of all adapters in memory, the active one first."""
        return [self._active_adapter, *self._inactive_configs]

    def active_adapters(self) -> list[str]:
        """The active adapter's name in a list, as transformers' models answer."""
        return [self._active_adapter]

    def load_adapter(self, name_or_path: str | os.PathLike, adapter_name: str, **kwargs) -> None:
        """Loads a trained adapter beside those in memory, without another copy of the CLIP; it is not yet active.

        Adapters may differ in everything but the CLIP: that must be the same, at the same input size.

        Args:
            name_or_path (`str` or `os.PathLike`):
                Hub id or folder of a saved MoECLIP model, adapters-only or full; of a full one the CLIP is compared
                with the model's own and left.
            adapter_name (`str`): A new name for it.
            **kwargs: `revision`, `subfolder`, `variant`, `token`, `cache_dir`, `force_download`, `local_files_only`, as
                in `from_pretrained`.

        Raises:
            ValueError: If the name is taken or holds a dot, the adapter was trained on another CLIP, or its weights do
                not match its configuration.
            OSError: If there is no such model.
        """
        self._check_new_name(adapter_name)
        unknown = sorted(set(kwargs) - set(LOADING_ARGUMENTS))
        if unknown:
            raise ValueError(
                f"`load_adapter` got {unknown[0]!r}: it loads whole MoECLIP adapters and takes "
                f"{', '.join(LOADING_ARGUMENTS)}. Load other PEFT adapters with `PeftModel.from_pretrained(model, ...)`."
            )
        hub_arguments = {name: value for name, value in kwargs.items() if name != "variant"}
        config = MoECLIPConfig.from_pretrained(name_or_path, **hub_arguments)
        check_same_backbone(self, config, name_or_path, kwargs)
        alone = self._adapter_alone(config, read_adapters(name_or_path, kwargs))
        self._take_over(alone, adapter_name)
        self._inactive_configs[adapter_name] = self._config_of_adapter(config, name_or_path)

    def set_adapter(self, adapter_name: str) -> None:
        """Makes an adapter the active one: the model then computes what it computes with this adapter alone.

        `prompt_embeds` come from the frozen CLIP and stay valid. `text_embeds` come from the text adapter: those of
        another adapter are not for this one, and the model cannot tell. The active adapter's parameters are trainable,
        the others' are not.

        Args:
            adapter_name (`str`): Its name.

        Raises:
            ValueError: If there is no such adapter.
        """
        self._check_known(adapter_name)
        if adapter_name != self._active_adapter:
            self.inactive_heads[self._active_adapter] = self._own_heads()
            self._inactive_configs[self._active_adapter] = self.config
            heads = self.inactive_heads.pop(adapter_name)
            for name in HEADS:
                setattr(self, name, heads[name] if name in heads else None)
            self.config = self._inactive_configs.pop(adapter_name)
            self._active_adapter = adapter_name
        for layer in self.vision_model.encoder.layers:
            layer.moe_lora.set_adapter(adapter_name)
        self.freeze_backbone()

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes an adapter that is not active from memory.

        Args:
            adapter_name (`str`): Its name.

        Raises:
            ValueError: If there is no such adapter, or it is the active one.
        """
        self._check_known(adapter_name)
        if adapter_name == self._active_adapter:
            raise ValueError(f"`adapter_name` ({adapter_name!r}) is the active adapter: set another one first.")
        for layer in self.vision_model.encoder.layers:
            layer.moe_lora.delete_adapter(adapter_name)
        del self.inactive_heads[adapter_name]
        del self._inactive_configs[adapter_name]

    def get_adapter_state_dict(self, adapter_name: str | None = None) -> dict[str, torch.Tensor]:
        """The tensors of one adapter, under the names they have in a model with this adapter alone.

        Args:
            adapter_name (`str`, *optional*): Its name. `None`: the active one.

        Returns:
            `dict[str, torch.Tensor]`: experts, projections, image head and text adapter.

        Raises:
            ValueError: If there is no such adapter.
        """
        adapter_name = self._active_adapter if adapter_name is None else adapter_name
        self._check_known(adapter_name)
        whole = self._single_adapter(self.state_dict(), adapter_name)
        return {name: tensor for name, tensor in whole.items() if is_adapter_key(name)}

    def disable_adapters(self) -> None:
        """Switches the experts off: the vision tower is the plain CLIP's. Heads and text adapter stay."""
        self._enable_experts(False)

    def enable_adapters(self) -> None:
        """Switches the active adapter's experts on again."""
        self._enable_experts(True)

    def add_adapter(self, adapter_config, adapter_name: str | None = None) -> None:
        """Not for this model, whose adapters come whole.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"`add_adapter` cannot add {type(adapter_config).__name__}: an adapter of this model is more than a PEFT "
            f"configuration. Load a trained one with `load_adapter`, or use `peft.get_peft_model(model, config)`."
        )

    def enable_peft_hotswap(self, *args, **kwargs) -> None:
        """Not for this model: `load_adapter` and `set_adapter` need no preparation.

        Raises:
            ValueError: Always.
        """
        raise ValueError("`enable_peft_hotswap` prepares LoRA adapters: `load_adapter` and `set_adapter` need none.")

    def _enable_experts(self, enabled: bool) -> None:
        for layer in self.vision_model.encoder.layers:
            layer.moe_lora.enable_adapters(enabled)

    def _check_known(self, adapter_name) -> None:
        if not isinstance(adapter_name, str) or adapter_name not in self.adapter_names:
            raise ValueError(
                f"`adapter_name` ({adapter_name!r}) must be one of {', '.join(map(repr, sorted(self.adapter_names)))}."
            )

    def _check_new_name(self, adapter_name) -> None:
        if not isinstance(adapter_name, str) or not adapter_name or "." in adapter_name:
            raise ValueError(f"`adapter_name` ({adapter_name!r}) must be a name without a dot, not empty.")
        if adapter_name in self.adapter_names:
            raise ValueError(f"`adapter_name` ({adapter_name!r}) is taken: delete that one or use another name.")

    def _own_heads(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: getattr(self, name) for name in HEADS if getattr(self, name) is not None})

    def _adapter_alone(self, config: MoECLIPConfig, tensors: dict[str, torch.Tensor]) -> "MoECLIPAdapterMixin":
        """A model of `config` with the adapter's tensors, whose CLIP is on the meta device and takes no memory."""
        with torch.device("meta"):
            alone = type(self)(config)
        expected = {name: tensor.shape for name, tensor in alone.state_dict().items() if is_adapter_key(name)}
        both = expected.keys() & tensors.keys()
        check_loading_info(
            {
                "missing_keys": expected.keys() - tensors.keys(),
                "unexpected_keys": tensors.keys() - expected.keys(),
                "mismatched_keys": {name for name in both if tensors[name].shape != expected[name]},
            }
        )
        alone.load_state_dict(tensors, strict=False, assign=True)
        return alone.train(self.training)

    def _take_over(self, alone: "MoECLIPAdapterMixin", adapter_name: str) -> None:
        """Moves the experts and heads of another model into this one, in this one's precision."""
        dtype = self.text_adapter.weight.dtype
        layers = zip(self.vision_model.encoder.layers, alone.vision_model.encoder.layers, strict=True)
        for layer, other in layers:
            for experts in other.moe_lora.active_experts():
                experts.to(device=next(layer.parameters()).device, dtype=dtype).requires_grad_(False)
                layer.moe_lora.update_layer(adapter_name, experts)
        heads = alone._own_heads().to(device=self.text_adapter.weight.device, dtype=dtype)
        self.inactive_heads[adapter_name] = heads.requires_grad_(False)

    def _config_of_adapter(self, config: MoECLIPConfig, name_or_path) -> MoECLIPConfig:
        """This model's configuration with the adapter's own fields."""
        merged = copy.deepcopy(self.config)
        for field in fields(MoECLIPConfig):
            if field.name in MoECLIPConfig.__annotations__ and field.name not in TOWER_CONFIGS:
                setattr(merged, field.name, getattr(config, field.name))
        merged.name_or_path = os.fspath(name_or_path)
        return merged

    def _single_adapter(self, state_dict: dict[str, torch.Tensor], adapter_name: str) -> dict[str, torch.Tensor]:
        """The state dict of a model with one of the adapters alone."""
        names = {name: _name_alone(name, adapter_name, self._active_adapter) for name in state_dict}
        return {names[name]: tensor for name, tensor in state_dict.items() if names[name] is not None}


def _name_alone(name: str, adapter_name: str, active_adapter: str) -> str | None:
    """Name of a tensor in a model with one adapter alone; None for another adapter's."""
    before, experts, after = name.partition(".moe_lora_experts.")
    if experts:
        owner, _, after = after.partition(".")
        name = f"{before}{experts}{DEFAULT_ADAPTER}.{after}"
    elif name.startswith("inactive_heads."):
        _, owner, name = name.split(".", 2)
    elif is_adapter_key(name):
        owner = active_adapter
    else:
        return name
    return name if owner == adapter_name else None


__all__ = ["MoECLIPAdapterMixin"]
