"""`training.json`, the file beside a trained model that says what it was trained on, and how."""

import logging
import os
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from .json_file import read_json_object, write_json


logger = logging.getLogger(__name__)

TRAINING_RECORD_NAME = "training.json"

TRAINING_RECORD_KEYS = (
    "preset",
    "seed",
    "data",
    "benchmark",
    "class_names",
    "object_names",
    "num_images",
    "clip",
    "image_size",
    "num_train_epochs",
    "learning_rate",
    "batch_size",
    "recipe",
    "versions",
    "commit",
    "created",
)
"""What every record says; more may stand in it. `data` is the path, benchmark key or Hub id of the training data,
`benchmark` its key if it is one of the paper's, `batch_size` the images of an optimizer step over all processes,
`commit` the one of this package's checkout. None where it is not known."""


def write_training_record(folder: str | os.PathLike, record: dict) -> None:
    """Writes a record into a model's folder, whole or not at all.

    Args:
        folder (`str` or `os.PathLike`): The model's folder, made if missing.
        record (`dict`): Values by the keys of `TRAINING_RECORD_KEYS`.

    Raises:
        ValueError: If a key is missing.
        OSError: If the file cannot be written.
    """
    _check_keys(record, "`record`")
    write_json(Path(folder) / TRAINING_RECORD_NAME, record)


def read_training_record(model: str | os.PathLike, **hub_arguments) -> dict | None:
    """Reads the record of a model, from its folder or from the Hub.

    Args:
        model (`str` or `os.PathLike`): Model folder or Hub id.
        **hub_arguments: `revision`, `subfolder`, `token`, `cache_dir`, `local_files_only`, `force_download` as in
            `from_pretrained`.

    Returns:
        `dict` or `None`: The record; None where the model has none, or where it has to be taken from the Hub and there
        is no connection, which is said in the log.

    Raises:
        ValueError: If the file is damaged or lacks a key.
        OSError: If the repository does not exist.
    """
    if os.path.isdir(model):
        path = Path(model, hub_arguments.get("subfolder") or "", TRAINING_RECORD_NAME)
        if not path.is_file():
            return None
    else:
        try:
            path = hf_hub_download(os.fspath(model), TRAINING_RECORD_NAME, **hub_arguments)
        except LocalEntryNotFoundError:
            logger.warning(
                "%s: there is no connection to the Hub, so whether it has a %s is not known.",
                model, TRAINING_RECORD_NAME,
            )  # fmt: skip
            return None
        except EntryNotFoundError:
            return None
    record = read_json_object(path)
    _check_keys(record, str(path))
    return record


def _check_keys(record: dict, name: str) -> None:
    missing = [key for key in TRAINING_RECORD_KEYS if key not in record]
    if missing:
        raise ValueError(f"{name} lacks {missing[0]!r}: a training record says {', '.join(TRAINING_RECORD_KEYS)}.")
