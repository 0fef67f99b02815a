"""Training: a thin layer over transformers' Trainer, so that Accelerate does devices, precision and processes.

Names are imported on first use, so that the options of a command line can be read without the trainer.
"""

import importlib
from typing import TYPE_CHECKING


_MODULE_OF_NAME = {
    "PRESETS": "presets",
    "MoECLIPTrainer": "trainer",
    "MoECLIPTrainingArguments": "arguments",
    "Preset": "presets",
}

__all__ = ["PRESETS", "MoECLIPTrainer", "MoECLIPTrainingArguments", "Preset"]

if TYPE_CHECKING:
    from .arguments import MoECLIPTrainingArguments
    from .presets import PRESETS, Preset
    from .trainer import MoECLIPTrainer


def __getattr__(name: str):
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
