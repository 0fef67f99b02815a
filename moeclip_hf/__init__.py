"""MoECLIP for HuggingFace: zero-shot anomaly detection with patch-routed LoRA experts on a frozen CLIP.

Names are imported on first use, so that `import moeclip_hf` stays quick and needs the core packages only.
"""

import importlib
from typing import TYPE_CHECKING

from .version import __version__


_MODULE_OF_NAME = {
    "MoECLIPConfig": "configuration_moeclip",
    "MoELoraConfig": "configuration_moeclip",
    "MoELoraModel": "tuner_moeclip",
    "MoECLIPForAnomalyDetection": "modeling_moeclip",
    "MoECLIPImageProcessor": "image_processing_moeclip",
    "MoECLIPProcessor": "processing_moeclip",
    "MoECLIPTrainer": "training",
    "MoECLIPTrainingArguments": "training",
    "convert_original": "conversion",
}

__all__ = [
    "MoECLIPConfig",
    "MoECLIPForAnomalyDetection",
    "MoECLIPImageProcessor",
    "MoECLIPProcessor",
    "MoECLIPTrainer",
    "MoECLIPTrainingArguments",
    "MoELoraConfig",
    "MoELoraModel",
    "convert_original",
]

if TYPE_CHECKING:
    from .configuration_moeclip import MoECLIPConfig, MoELoraConfig
    from .conversion import convert_original
    from .image_processing_moeclip import MoECLIPImageProcessor
    from .modeling_moeclip import MoECLIPForAnomalyDetection
    from .processing_moeclip import MoECLIPProcessor
    from .training import MoECLIPTrainer, MoECLIPTrainingArguments
    from .tuner_moeclip import MoELoraModel


def __getattr__(name: str):
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
