"""The experts as a PEFT tuner: attached beside whole encoder layers, not wrapped around them.

A wrapped layer would rename the tower's weights and hide its outputs from transformers' `hidden_states`. Here an
encoder layer keeps its place and its names; a `moe_lora` child and a forward hook adapt what leaves the layer.
"""

import re

import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from .configuration_moeclip import MoELoraConfig, MoELoraPeftType
from .experts_moeclip import MoELoraExperts


# `encoder.layers.{i}` of CLIP and SigLIP, `encoder.layer.{i}` of DINOv2, anywhere but inside a text tower.
ENCODER_LAYER = r"(?!(?:.*\.)?text_model\.)(?:.*\.)?encoder\.layers?\.{index}"


class MoELoraLayer(nn.Module, BaseTunerLayer):
    """The named sets of experts attached to one encoder layer; the active ones apply in turn.

    Args:
        layer_weight (`torch.nn.Parameter`): A weight of the encoder layer; the experts follow its device.
    """

    adapter_layer_names = ("moe_lora_experts",)
    other_param_names = ()

    def __init__(self, layer_weight: nn.Parameter):
        super().__init__()
        self._layer_weight = (layer_weight,)  # in a tuple, so that it stays the encoder layer's own
        self.moe_lora_experts = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters = []

    def update_layer(self, adapter_name: str, experts: MoELoraExperts) -> None:
        """Adds or replaces the experts called `adapter_name`.

        Args:
            adapter_name (`str`): Name of the adapter.
            experts (`MoELoraExperts`): Experts of this layer.
        """
        self.moe_lora_experts[adapter_name] = experts

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT calls this once it has filled experts that were made on the meta device
        self.moe_lora_experts[adapter_name].to(device or self._layer_weight[0].device)

    def active_experts(self) -> list[MoELoraExperts]:
        """Experts that the layer's output passes through, in order; none while the adapters are disabled."""
        if self.disable_adapters:
            return []
        return [self.moe_lora_experts[name] for name in self.active_adapters if name in self.moe_lora_experts]

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Adapts the output of the encoder layer.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): The layer's output.

        Returns:
            `tuple(torch.Tensor)`: adapted output of the same shape and dtype; router logits and codes of the last
            active experts as [`MoELoraExperts`] returns them, None where no experts are active.
        """
        router_logits = codes = None
        for experts in self.active_experts():
            hidden_states, router_logits, codes = experts(hidden_states)
        return hidden_states, router_logits, codes


def _adapt_output(layer: nn.Module, args, output):
    """Forward hook of an encoder layer; a function of the module so that copies and pickles keep working."""
    if isinstance(output, tuple):
        return (layer.moe_lora(output[0])[0], *output[1:])
    return layer.moe_lora(output)[0]


def attach_moe_lora(layer: nn.Module) -> MoELoraLayer:
    """Puts an empty [`MoELoraLayer`] beside an encoder layer, unless it has one, and sends the layer's output through.

    Args:
        layer (`torch.nn.Module`): The encoder layer.

    Returns:
        [`MoELoraLayer`]: What stands beside the layer, in `layer.moe_lora`.
    """
    if not hasattr(layer, "moe_lora"):
        layer.moe_lora = MoELoraLayer(next(layer.parameters()))
        # before other hooks, so that recorded hidden states are the adapted ones
        layer._moe_lora_handle = layer.register_forward_hook(_adapt_output, prepend=True)
    return layer.moe_lora


class MoELoraModel(BaseTuner):
    """Attaches [`MoELoraExperts`] to the encoder layers of a vision tower, as `get_peft_model` expects of a tuner.

    Args:
        model (`torch.nn.Module`): The tower, or a model that contains it.
        peft_config (`MoELoraConfig`): Which layers get which experts.
        adapter_name (`str`): Name of the adapter.

    Raises:
        ValueError: If a layer to transform does not exist, or only a text tower is given.
    """

    prefix = "moe_lora_"
    tuner_layer_cls = MoELoraLayer
    target_module_mapping = {}

    def _prepare_adapter_config(self, peft_config: MoELoraConfig, model_config: dict) -> MoELoraConfig:
        if peft_config.target_modules is None:
            if "text" in model_config.get("model_type", ""):
                raise ValueError(
                    f"`model` is a text tower ({model_config['model_type']}): experts adapt vision towers only."
                )
            peft_config.target_modules = self._encoder_layer_pattern(peft_config.layers_to_transform)
        return peft_config

    def _encoder_layer_pattern(self, layers_to_transform: list[int] | None) -> str:
        any_layer = ENCODER_LAYER.format(index=r"(\d+)")
        existing = {
            int(match.group(1)) for name, _ in self.model.named_modules() if (match := re.fullmatch(any_layer, name))
        }
        if not existing:
            raise ValueError("`model` has no `encoder.layers`: name the layers to adapt in `target_modules`.")
        missing = sorted(set(layers_to_transform or ()) - existing)
        if missing:
            raise ValueError(
                f"`layers_to_transform` holds {missing[0]}, but the model's layers are 0 to {max(existing)} "
                f"(counted from 0)."
            )
        layers = sorted(existing) if layers_to_transform is None else layers_to_transform
        return ENCODER_LAYER.format(index=f"({'|'.join(map(str, layers))})")

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, parameter_name=None
    ):
        experts = MoELoraExperts(peft_config, _hidden_size(target, current_key), _layer_index(current_key))
        if not experts.router.is_meta:
            experts.to(device=next(target.parameters()).device)
        moe_lora = attach_moe_lora(target)
        moe_lora.update_layer(adapter_name, experts.train(target.training))
        moe_lora.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)

    def _unload_and_optionally_merge(self, merge=True, progressbar=False, safe_merge=False, adapter_names=None):
        if merge:
            raise ValueError("Experts cannot be merged into the tower's weights: they are chosen token by token.")
        for module in self.model.modules():
            if hasattr(module, "_moe_lora_handle"):
                module._moe_lora_handle.remove()
                del module._moe_lora_handle
                del module.moe_lora
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        return self.model


def _hidden_size(layer: nn.Module, name: str) -> int:
    for module in layer.modules():
        if isinstance(module, nn.LayerNorm):
            return module.normalized_shape[-1]
    raise ValueError(f"`target_modules` matches {name!r}, which is no transformer layer: it has no layer norm.")


def _layer_index(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else 0


PEFT_TYPE_TO_TUNER_MAPPING[MoELoraPeftType.MOE_LORA] = MoELoraModel

__all__ = ["MoELoraLayer", "MoELoraModel"]
