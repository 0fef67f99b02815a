"""Configurations of MoECLIP (Park et al., CVPR 2026, https://arxiv.org/abs/2603.03101) and of its MoE-LoRA adapter.

Conventions that hold everywhere: class 0 is normal, class 1 is anomalous; layers are counted from 0, so that the
paper's layers 6, 12, 18, 24 are 5, 11, 17, 23.
"""

import enum
import numbers
from dataclasses import dataclass, field, fields

from huggingface_hub.dataclasses import strict
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING
from transformers import AutoConfig, CLIPTextConfig, CLIPVisionConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME


# A copy of this code that came with a model is found through that model's own files. The installed package alone makes
# itself known to the Auto classes, so that models with code of different versions stay apart in one process.
IS_INSTALLED_PACKAGE = not __name__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")


class MoELoraPeftType(enum.StrEnum):
    """PEFT's own `PeftType` is closed to other packages; this one equals the string found in `adapter_config.json`."""

    MOE_LORA = "MOE_LORA"


@dataclass
class MoELoraConfig(PeftConfig):
    r"""Mixture of LoRA experts after whole encoder layers of a vision transformer, each patch routed to a few of them.

    Source: the paper's MoE of LoRA experts with frozen orthogonal feature separation (FOFS).

    Args:
        r (`int`, *optional*, defaults to 8): Rank of each expert.
        lora_alpha (`float`, *optional*, defaults to 16): Expert outputs are scaled by `lora_alpha / r`.
        lora_dropout (`float`, *optional*, defaults to 0.05): Dropout on the experts' input, in training only.
        num_experts (`int`, *optional*, defaults to 4): Number of experts of a layer.
        num_experts_per_tok (`int`, *optional*, defaults to 2): How many experts each token is routed to.
        orthogonal_split (`bool`, *optional*, defaults to `True`):
            FOFS: each `lora_A` is frozen, reads a chunk of the input features of its own and is orthonormal there.
            `False`: `lora_A` is dense and trained.
        adapter_weight (`float`, *optional*, defaults to 0.1): Share of the experts' output in the mixed output.
        layers_to_transform (`list[int]`, *optional*):
            0-based encoder layers that get experts. `None`: every layer of the vision tower.
        target_modules (`str` or `list[str]`, *optional*):
            Names, or a regular expression, of the encoder layers to adapt, for towers whose layers are not called
            `encoder.layers.{i}` or `encoder.layer.{i}`. `None`: found from `layers_to_transform`.
        seed (`int`, *optional*, defaults to 0): Seed of the initial `lora_A`.

    Raises:
        ValueError: If a value is out of its range.

    Example:
    ```python
    >>> from peft import get_peft_model
    >>> from transformers import CLIPVisionModel
    >>> from moeclip_hf import MoELoraConfig

    >>> tower = CLIPVisionModel.from_pretrained("openai/clip-vit-base-patch32")
    >>> model = get_peft_model(tower, MoELoraConfig(layers_to_transform=[2, 5, 8, 11]))
    ```
    """

    r: int = field(default=8, metadata={"help": "Rank of each expert."})
    lora_alpha: float = field(default=16, metadata={"help": "Expert outputs are scaled by lora_alpha / r."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout on the experts' input in training."})
    num_experts: int = field(default=4, metadata={"help": "Number of experts of a layer."})
    num_experts_per_tok: int = field(default=2, metadata={"help": "Number of experts each token is routed to."})
    orthogonal_split: bool = field(default=True, metadata={"help": "Frozen orthogonal feature separation (FOFS)."})
    adapter_weight: float = field(default=0.1, metadata={"help": "Share of the experts in the mixed output."})
    layers_to_transform: list[int] | None = field(default=None, metadata={"help": "0-based layers with experts."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Names of the layers to adapt."})
    seed: int = field(default=0, metadata={"help": "Seed of the initial lora_A."})
    # The fields below are read by PEFT on every tuner's configuration.
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Names of layers to leave out."})
    target_parameters: list[str] | None = field(default=None, metadata={"help": "Unused: experts adapt modules."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Further modules to train and save."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = MoELoraPeftType.MOE_LORA
        if isinstance(self.layers_to_transform, int):
            self.layers_to_transform = [self.layers_to_transform]
        self._validate_types()
        if self.layers_to_transform is not None:
            self.layers_to_transform = sorted(set(self.layers_to_transform))
        self._validate_ranges()

    def _validate_types(self):
        for name in ("r", "num_experts", "num_experts_per_tok", "seed"):
            if not isinstance(getattr(self, name), numbers.Integral):
                raise ValueError(f"`{name}` ({getattr(self, name)!r}) must be a whole number.")
        for name in ("lora_alpha", "lora_dropout", "adapter_weight"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise ValueError(f"`{name}` ({getattr(self, name)!r}) must be a number.")
        if not all(isinstance(layer, numbers.Integral) for layer in self.layers_to_transform or ()):
            raise ValueError(f"`layers_to_transform` ({self.layers_to_transform!r}) must hold whole numbers.")

    def _validate_ranges(self):
        if self.r < 1:
            raise ValueError(f"`r` ({self.r}) must be at least 1.")
        if self.num_experts < 1:
            raise ValueError(f"`num_experts` ({self.num_experts}) must be at least 1.")
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"`num_experts_per_tok` ({self.num_experts_per_tok}) must be between 1 and `num_experts` "
                f"({self.num_experts})."
            )
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`lora_dropout` ({self.lora_dropout}) must be in [0, 1).")
        if not 0 <= self.adapter_weight <= 1:
            raise ValueError(f"`adapter_weight` ({self.adapter_weight}) must be in [0, 1].")
        if self.layers_to_transform is not None and min(self.layers_to_transform, default=-1) < 0:
            raise ValueError(
                f"`layers_to_transform` ({self.layers_to_transform}) must hold 0-based layer numbers, at least one and "
                f"none negative."
            )
        if self.target_parameters is not None:
            raise ValueError("`target_parameters` must be None: experts are attached to encoder layers.")


PEFT_TYPE_TO_CONFIG_MAPPING[MoELoraPeftType.MOE_LORA] = MoELoraConfig
PEFT_TYPE_TO_PREFIX_MAPPING[MoELoraPeftType.MOE_LORA] = "moe_lora_"

# What a model's `moe_lora` records: the fields that make the experts. PEFT's bookkeeping stays with PEFT.
MOE_LORA_FIELDS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "num_experts",
    "num_experts_per_tok",
    "orthogonal_split",
    "adapter_weight",
    "layers_to_transform",
    "seed",
)


@strict
class MoECLIPConfig(PreTrainedConfig):
    r"""Configuration of [`MoECLIPForAnomalyDetection`]. The defaults are the paper's: CLIP ViT-L/14-336 at 518 pixels.

    Args:
        vision_config (`dict` or `CLIPVisionConfig`, *optional*):
            CLIP's vision tower. Its `image_size` (pixels) is the model's input size, a multiple of its `patch_size`.
        text_config (`dict` or `CLIPTextConfig`, *optional*): CLIP's text tower.
        projection_dim (`int`, *optional*, defaults to 768): Width of the space in which patches and texts meet.
        moe_lora (`dict`, *optional*, defaults to `{}`):
            Fields of [`MoELoraConfig`], those left out taking their defaults and `layers_to_transform` that of
            `feature_layers`. `None`: no experts.
        feature_layers (`tuple[int]`, *optional*, defaults to `(5, 11, 17, 23)`):
            0-based encoder layers whose patch tokens become anomaly maps, in ascending order.
        patch_average_kernel_sizes (`tuple[int]`, *optional*, defaults to `(1, 3, 5)`):
            Windows, in patches, of the patch average aggregation (PAA), odd and starting with 1. `(1,)`: no averaging.
        share_patch_projections (`bool`, *optional*, defaults to `True`):
            One projection per feature layer, shared by its windows; `False`: one per map.
        patch_projection_act (`str`, *optional*): Activation after the patch projections, e.g. `"leaky_relu"`.
        use_image_head (`bool`, *optional*, defaults to `True`):
            Use the depth-wise image head; `False`: the image embedding is the mean of the last layer's patches.
        router_aux_loss_coef (`float`, *optional*, defaults to 0.01): Weight of the load-balancing loss.
        etf_loss_coef (`float`, *optional*, defaults to 0.01): Weight of the equiangular-frame (ETF) loss.
        base_model_name_or_path (`str`, *optional*):
            The CLIP under the adapters: a Hub id or a folder. One that begins with `./` or `../` is relative to the
            folder of the adapters.
        base_model_revision (`str`, *optional*): Revision of that CLIP on the Hub.
        adapters_only (`bool`, *optional*, defaults to `False`): Whether the saved weights leave the CLIP out.

    Raises:
        ValueError: If a key is unknown, here or in `moe_lora`, or a value does not fit the others.
    """

    model_type = "moeclip"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=CLIPVisionConfig,
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 518,
                "patch_size": 14,
                "projection_dim": 768,
            },
        ),
        "text_config": SubConfigSpec(
            config_class=CLIPTextConfig,
            init_kwargs={
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "projection_dim": 768,
            },
        ),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 768
    moe_lora: dict | None = field(default_factory=dict)
    feature_layers: list[int] | tuple[int, ...] = (5, 11, 17, 23)
    patch_average_kernel_sizes: list[int] | tuple[int, ...] = (1, 3, 5)
    share_patch_projections: bool = True
    patch_projection_act: str | None = None
    use_image_head: bool = True
    router_aux_loss_coef: float = 0.01
    etf_loss_coef: float = 0.01
    base_model_name_or_path: str | None = None
    base_model_revision: str | None = None
    adapters_only: bool = False

    # Keys that transformers itself writes into or passes through a config, beside its own dataclass fields.
    _library_keys = frozenset(
        {
            "_commit_hash",
            "_name_or_path",
            "attn_implementation",
            "auto_map",
            "custom_pipelines",
            "experts_implementation",
            "model_type",
            "name_or_path",
            "num_labels",
            "output_attentions",
            "torch_dtype",
            "_attn_implementation_internal",
            "_experts_implementation_internal",
        }
    )

    def __post_init__(self, **kwargs):
        if kwargs.get("model_type", self.model_type) != self.model_type:
            raise ValueError(
                f"`model_type` ({kwargs['model_type']!r}) must be {self.model_type!r}: build a fresh model on a CLIP by "
                f"`MoECLIPForAnomalyDetection.from_clip`."
            )
        unknown = sorted(set(kwargs) - self._library_keys)
        if unknown:
            raise ValueError(
                f"Unknown key {unknown[0]!r} in MoECLIPConfig. Known keys: {', '.join(_own_fields(self))}."
            )
        if IS_INSTALLED_PACKAGE:
            # `pipeline` would ask for the repository's own code, although the task is registered here.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        self.feature_layers = tuple(self.feature_layers)
        self.patch_average_kernel_sizes = tuple(self.patch_average_kernel_sizes)
        self._validate_towers()
        self._validate_features()
        if self.moe_lora is not None:
            self.moe_lora = self._complete_moe_lora(self.moe_lora)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Builds a configuration from its fields, as transformers does, but says so where there are none.

        Args:
            config_dict (`dict`): The fields, as config.json holds them.
            **kwargs: Other values for some of them.

        Returns:
            [`MoECLIPConfig`]: The configuration.

        Raises:
            ValueError: If the value is no dictionary.
        """
        if not isinstance(config_dict, dict):
            raise ValueError(
                f"config.json must hold a JSON object, {{...}}, but holds {type(config_dict).__name__}: use the one that "
                "was saved with the weights."
            )
        return super().from_dict(config_dict, **kwargs)

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_maps(self) -> int:
        """Number of anomaly maps: one per feature layer and averaging window."""
        return len(self.feature_layers) * len(self.patch_average_kernel_sizes)

    @property
    def num_patch_projections(self) -> int:
        """Number of patch projections: one per feature layer, or per map if a layer's scales do not share theirs."""
        return len(self.feature_layers) if self.share_patch_projections else self.num_maps

    def _validate_towers(self):
        image_size, patch_size = self.vision_config.image_size, self.vision_config.patch_size
        if image_size < patch_size or image_size % patch_size:
            lower = max(image_size // patch_size, 1) * patch_size
            raise ValueError(
                f"`image_size` ({image_size}) must be a multiple of the patch size ({patch_size}): use {lower} or "
                f"{lower + patch_size}."
            )
        for tower in ("vision_config", "text_config"):
            hidden_act = getattr(self, tower).hidden_act
            if hidden_act not in ACT2FN:
                raise ValueError(
                    f"`hidden_act` ({hidden_act!r}) of `{tower}` must be an activation of transformers, such as 'gelu'."
                )

    def _validate_features(self):
        num_layers = self.vision_config.num_hidden_layers
        _validate_layers("feature_layers", self.feature_layers, num_layers)
        if not self.feature_layers:
            raise ValueError("`feature_layers` () must name at least one encoder layer.")
        if list(self.feature_layers) != sorted(set(self.feature_layers)):
            raise ValueError(f"`feature_layers` {self.feature_layers} must be in ascending order, without repeats.")
        kernels = self.patch_average_kernel_sizes
        if not kernels or kernels[0] != 1 or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(
                f"`patch_average_kernel_sizes` {kernels} must be odd numbers of patches, the first one 1."
            )
        if len(set(kernels)) != len(kernels):
            raise ValueError(f"`patch_average_kernel_sizes` {kernels} must not repeat a window.")
        if self.patch_projection_act is not None and self.patch_projection_act not in ACT2FN:
            raise ValueError(
                f"`patch_projection_act` ({self.patch_projection_act!r}) must be None or an activation of "
                f"transformers, such as 'leaky_relu'."
            )

    def _complete_moe_lora(self, moe_lora: dict) -> dict:
        known = {f.name for f in fields(MoELoraConfig)}
        unknown = sorted(set(moe_lora) - known)
        if unknown:
            raise ValueError(f"Unknown key {unknown[0]!r} in `moe_lora`. Known keys: {', '.join(MOE_LORA_FIELDS)}.")
        adapter = MoELoraConfig(**moe_lora)
        if adapter.layers_to_transform is None:
            adapter.layers_to_transform = list(self.feature_layers)
        num_layers, hidden_size = self.vision_config.num_hidden_layers, self.vision_config.hidden_size
        _validate_layers("layers_to_transform", adapter.layers_to_transform, num_layers)
        validate_expert_sizes(adapter, hidden_size)
        return {name: getattr(adapter, name) for name in MOE_LORA_FIELDS}


def validate_expert_sizes(adapter: MoELoraConfig, hidden_size: int) -> None:
    """Checks that the experts fit the width of the layers they are attached to.

    Args:
        adapter (`MoELoraConfig`): Sizes of the experts.
        hidden_size (`int`): Number of features of the layer's tokens.

    Raises:
        ValueError: If the rank exceeds the features that one expert reads.
    """
    readable = hidden_size // adapter.num_experts if adapter.orthogonal_split else hidden_size
    if adapter.r > readable:
        raise ValueError(
            f"`r` ({adapter.r}) must not exceed the {readable} input features of an expert "
            f"({hidden_size} features, `num_experts` {adapter.num_experts}): lower `r` or `num_experts`."
        )


def _validate_layers(name: str, layers, num_layers: int) -> None:
    outside = [layer for layer in layers if not 0 <= layer < num_layers]
    if outside:
        raise ValueError(
            f"`{name}` holds {outside[0]}, but the vision tower's layers are 0 to {num_layers - 1} (counted from 0)."
        )


def _own_fields(config: MoECLIPConfig) -> list[str]:
    return [f.name for f in fields(config) if f.name in type(config).__annotations__]


MoECLIPConfig.register_for_auto_class()
if IS_INSTALLED_PACKAGE:
    AutoConfig.register(MoECLIPConfig.model_type, MoECLIPConfig, exist_ok=True)

__all__ = ["MoECLIPConfig", "MoELoraConfig"]
