"""Training: a thin layer over transformers' Trainer, so that Accelerate does devices, precision and processes."""

from .arguments import MoECLIPTrainingArguments
from .presets import PRESETS, Preset
from .trainer import MoECLIPTrainer


__all__ = ["PRESETS", "MoECLIPTrainer", "MoECLIPTrainingArguments", "Preset"]
