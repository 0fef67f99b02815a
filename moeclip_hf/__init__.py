"""MoECLIP for HuggingFace: zero-shot anomaly detection with patch-routed LoRA experts on a frozen CLIP.

The import makes transformers' Auto classes know MoECLIP. It needs the core packages only; the names that need an extra
are imported on first use.
"""

import importlib
import sys
from pathlib import Path
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

# Importing these registers their classes, and those of the files they import, with the Auto classes and `pipeline`.
_REGISTERING_MODULES = ("modeling_moeclip", "processing_moeclip", "pipeline_moeclip")

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


def _is_console_command() -> bool:
    """Whether this process is `moeclip` or `python -m moeclip_hf.cli`."""
    # the whole name: a user's own `moeclip.py` is no console command
    script = Path(sys.argv[0]).name if getattr(sys, "argv", None) else ""
    return script in ("moeclip", "moeclip.exe") or f"{__name__}.cli" in sys.orig_argv


# transformers has no lazy registration: its mappings hold classes, and reaching them imports torch. Whoever imports the
# package to use a model pays for those libraries anyway. `moeclip --help` would not, and takes seconds with them instead
# of 0.05 s; its commands import the classes they use, which registers them.
if not _is_console_command():
    for _module in _REGISTERING_MODULES:
        importlib.import_module(f".{_module}", __name__)
