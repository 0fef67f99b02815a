"""A model on the paper's benchmarks, one after the other: one results file for each and a summary of all.

Files of a run that was interrupted are kept, so the next one goes on where it stopped.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from . import paper_results
from .data.benchmarks import BENCHMARKS, Benchmark, describe_count_differences, get_benchmark
from .evaluation import METRICS, average_defined, evaluate_model, format_results, write_results
from .json_file import read_json_object
from .model_identity import describe_weights
from .prompts_moeclip import GENERIC_OBJECT_NAME
from .timing import StageTimer
from .training_record import read_training_record


logger = logging.getLogger(__name__)

SUMMARY_NAME = "results.json"
# Results of another model or of other settings do not belong into the same folder: by these they are told apart.
IDENTITY = ("model_sha256", "base_sha256", "data", "image_size", "smoothing", "mask_threshold", "dtype")
