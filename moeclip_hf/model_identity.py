"""Which weights a model has and how they were trained: its files' hashes, its commit on the Hub, its training record."""

import hashlib
import os
from pathlib import Path

from huggingface_hub import snapshot_download

from .training_record import read_training_record


def describe_model(model, name: str | os.PathLike) -> dict:
    """Tells which weights a loaded model has and how they were trained.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model.
        name (`str` or `os.PathLike`): The folder or Hub id that it was loaded from.

    Returns:
        `dict`: what [`describe_weights`] returns; `training`, the training record or None, and its `preset` and `seed`.

    Raises:
        ValueError: If there are no weights' files, or the record is damaged.
    """
    record = read_training_record(name)
    about = {key: None if record is None else record[key] for key in ("preset", "seed")}
    return describe_weights(model, name) | about | {"training": record}


def describe_weights(model, name: str | os.PathLike) -> dict:
    """Tells which weights a loaded model has.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model.
        name (`str` or `os.PathLike`): The folder or Hub id that it was loaded from.

    Returns:
        `dict`: `model`, the name; `model_commit`, its commit on the Hub or None; `model_sha256`, the SHA-256 of each of
        its safetensors files; `base_model`, for adapters the same three of their CLIP, otherwise None.

    Raises:
        ValueError: If there are no such files.
    """
    config, base_model = model.config, None
    commit = getattr(config, "_commit_hash", None)
    if config.adapters_only:
        base, revision = config.base_model_name_or_path, config.base_model_revision
        base_model = {"model": base, "model_commit": revision, "model_sha256": _hash_files(base, revision)}
    return {
        "model": os.fspath(name),
        "model_commit": commit,
        "model_sha256": _hash_files(name, commit),
        "base_model": base_model,
    }


def _hash_files(name: str | os.PathLike, commit: str | None) -> dict[str, str]:
    folder = Path(name)
    if not folder.is_dir():
        # The model is loaded, so its files are here already.
        patterns = "*.safetensors"
        folder = Path(
            snapshot_download(os.fspath(name), revision=commit, allow_patterns=patterns, local_files_only=True)
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{name} has no *.safetensors file by which its results could be told from another model's.")
    return {file.name: _hash_file(file) for file in files}


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
