"""Model repositories: which files of a folder go to the Hub, what is written for it anew, and the upload in one commit."""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import validate_repo_id
from PIL import Image
from safetensors import SafetensorError, safe_open
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .backbone_moeclip import is_adapter_key
from .configuration_moeclip import MoECLIPConfig
from .hub_errors import hub_errors
from .json_file import read_json_object
from .model_card import METRICS, create_model_card, is_local_path
from .modeling_moeclip import MoECLIPForAnomalyDetection
from .processing_moeclip import MoECLIPProcessor
from .training_record import TRAINING_RECORD_NAME, read_training_record
from .visualization import make_legend, make_sheet, overlay_anomaly_map


logger = logging.getLogger(__name__)

CARD_NAME = "README.md"
RECIPE_NAME = "recipe.json"
EXAMPLE_NAME = "example.png"
RESULTS_FOLDER = "results"
RESULTS_PARTS = ("mean", "classes", "meta")
# What a push owns in a repository: of these, what an earlier one left and this one lacks is deleted.
OWNED = re.compile(rf"model.*\.safetensors(\.index\.json)?|\w+_moeclip\.py|{RESULTS_FOLDER}/[^/]+\.json|{EXAMPLE_NAME}|"
                   rf"{re.escape(TRAINING_RECORD_NAME)}|{re.escape(RECIPE_NAME)}")  # fmt: skip

Files = dict[str, Path | bytes]


def build_repository(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    results: Sequence[str | os.PathLike] | None = None,
    example: tuple[Image.Image, str] | None = None,
) -> Files:
    """Collects the files of a model repository. Nothing is written, and nothing is sent.

    Weights are taken as they are, after a look at every tensor's name and shape. Configuration, processor and code are
    written by this version of the package, so that they fit each other. In the JSON files, paths of this machine are
    cut to their last part. The card is told from all of these.

    Args:
        folder (`str` or `os.PathLike`): A model folder: weights in safetensors, configuration and processor; a training
            record, a recipe and results, if they lie in it, come along.
        repo_id (`str`): `user/name` of the repository, for the card.
        results (`Sequence[str]`, *optional*): The results files. None: all that lie in the folder or in its `results/`.
        example (`tuple[PIL.Image.Image, str]`, *optional*): A picture to show on the card with its anomaly map, and the
            object's name. None: no picture.

    Returns:
        `dict[str, Path | bytes]`: for each path in the repository the file, or the content, that belongs there.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is damaged or does not fit the others, or if others could not load the repository.
    """
    folder = Path(folder)
    config = _read_config(folder)
    weights = find_weights(folder, config)
    record = read_training_record(folder)
    found = read_results(find_results(folder) if results is None else results, folder, config)
    files: Files = _write_model_files(folder, config) | weights
    if record is not None:
        files[TRAINING_RECORD_NAME] = _to_json(record)
    if (folder / RECIPE_NAME).is_file():
        files[RECIPE_NAME] = _to_json(read_json_object(folder / RECIPE_NAME))
    files |= {path: _to_json(content) for path, content in found.items()}
    caption = None
    if example is not None:
        files[EXAMPLE_NAME] = _draw_example(folder, *example)
        caption = (EXAMPLE_NAME, f"{example[1]}: the picture, and its anomaly map from low (blue) to high (red).")
    card = create_model_card(
        config, repo_id, record=record, results=found, has_recipe=RECIPE_NAME in files, example=caption
    )
    files[CARD_NAME] = str(card).encode()
    own_card = folder / CARD_NAME
    if own_card.is_file() and "Written by moeclip_hf" not in own_card.read_text(encoding="utf-8"):
        logger.warning("%s is not taken: the repository's card is written anew.", own_card)
    return dict(sorted(files.items()))


def write_repository(files: Files, target: str | os.PathLike) -> None:
    """Writes the files of a repository into a new folder, all or none.

    Args:
        files (`dict[str, Path | bytes]`): The files, as [`build_repository`] returns them.
        target (`str` or `os.PathLike`): The folder, which must be missing or empty, so that it then holds these alone.

    Raises:
        ValueError: If the folder holds something.
        OSError: If it cannot be written.
    """
    target = Path(target).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already: name a folder that is missing or empty.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        unfinished = Path(scratch) / "files"
        for path, content in files.items():
            file = unfinished / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                shutil.copyfile(content, file)
        unfinished.replace(target)


def push_repository(
    files: Files,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a MoECLIP model",
) -> str:
    """Sends the files to the Hub in one commit: the repository has all of them or stays as it was.

    Args:
        files (`dict[str, Path | bytes]`): The files, as [`build_repository`] returns them.
        repo_id (`str`): `user/name` of the repository, made if missing.
        private (`bool`, *optional*, defaults to `False`): Whether the repository must be private. A public one of that
            name is refused, not changed. `False` makes a new one as its owner's settings say, and leaves an old one.
        token (`str`, *optional*): Token with write access; the one of `hf auth login` by default.
        revision (`str`, *optional*): Branch, `main` by default.
        commit_message (`str`, *optional*): Title of the commit.

    Returns:
        `str`: The repository's address.

    Raises:
        ValueError: If `repo_id` is no such name, or the repository is public and shall not be.
        OSError: If the Hub refuses, or the connection breaks.
    """
    check_repo_id(repo_id)
    api = HfApi(token=token)
    with hub_errors(f"Pushing to {repo_id}"):
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
        present = api.model_info(repo_id, revision=revision)
        if private and not present.private:
            raise ValueError(
                f"{repo_id} is there already and public: make it private on its page, or take another name."
            )
        stale = [
            CommitOperationDelete(sibling.rfilename)
            for sibling in present.siblings or ()
            if OWNED.fullmatch(sibling.rfilename) and sibling.rfilename not in files
        ]
        added = [
            CommitOperationAdd(path, str(source) if isinstance(source, Path) else source)
            for path, source in files.items()
        ]
        api.create_commit(repo_id, [*added, *stale], commit_message=commit_message, revision=revision)
    return str(url)


def check_repo_id(repo_id: str) -> None:
    """Checks the name of a repository.

    Args:
        repo_id (`str`): The name.

    Raises:
        ValueError: If it is not `user/name`, of characters that the Hub allows.
    """
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"`repo_id` ({repo_id!r}) must be user/name, the owner's name first.")


def find_weights(folder: Path, config: MoECLIPConfig) -> dict[str, Path]:
    """Finds a model's weights and checks every tensor's name and shape, without reading the tensors.

    Args:
        folder (`Path`): The model folder.
        config ([`MoECLIPConfig`]): Its configuration.

    Returns:
        `dict[str, Path]`: the file, or the shards with their index, by name.

    Raises:
        FileNotFoundError: If there are no weights in safetensors.
        ValueError: If a file is damaged or does not belong to the configuration.
    """
    names = [SAFE_WEIGHTS_NAME]
    if not (folder / SAFE_WEIGHTS_NAME).is_file():
        if not (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
            raise FileNotFoundError(_missing_weights(folder))
        index = read_json_object(folder / SAFE_WEIGHTS_INDEX_NAME)
        names = sorted({os.path.basename(name) for name in index.get("weight_map", {}).values()})
    shapes = {}
    for name in names:
        try:
            with safe_open(folder / name, framework="pt") as file:
                names_within = file.keys()  # the file itself cannot be iterated
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in names_within}
        except SafetensorError as error:
            raise ValueError(
                f"{folder / name} is damaged or no safetensors file ({error}): save the model again."
            ) from error
    expected = _expected_shapes(config)
    for key in sorted(shapes.keys() | expected.keys()):
        if shapes.get(key) != expected.get(key):
            raise ValueError(
                f"The weights in {folder} do not match its config.json: {key!r} has shape {shapes.get(key)}, expected "
                f"{expected.get(key)}. Use the config.json that was saved with them."
            )
    if names != [SAFE_WEIGHTS_NAME]:
        names.append(SAFE_WEIGHTS_INDEX_NAME)
    return {name: folder / name for name in names}


def read_results(paths: Sequence[str | os.PathLike], folder: Path, config: MoECLIPConfig) -> dict[str, dict]:
    """Reads results files, and refuses those that cannot be of this model.

    Args:
        paths (`Sequence[str]`): The files.
        folder (`Path`): The model folder.
        config ([`MoECLIPConfig`]): Its configuration.

    Returns:
        `dict[str, dict]`: the contents by their path in the repository.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file holds no results, or those of a model with another input size.
    """
    found = {}
    for path in map(Path, paths):
        content = _read_json(path)
        if not _is_results(content):
            raise ValueError(
                f"{path} holds no results of one data set: name a file that `moeclip evaluate` or `moeclip benchmark` wrote."
            )
        _check_figures(content, path)
        _check_weights(content["meta"], path, folder)
        size, own_size = content["meta"].get("image_size"), config.vision_config.image_size
        if size is not None and size != own_size:
            raise ValueError(
                f"{path} was measured at {size} pixels, but the model in {folder} reads {own_size}: it is of another "
                "model. Evaluate this one, or name its results."
            )
        name = f"{RESULTS_FOLDER}/{path.name}"
        if name in found:
            raise ValueError(
                f"Two results files are called {path.name}: rename one, the repository holds them side by side."
            )
        found[name] = content
    return found


def _read_config(folder: Path) -> MoECLIPConfig:
    if not (folder / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{folder} is no model folder, it has no {CONFIG_NAME}: name one that was saved by "
                                "`moeclip train`, `moeclip convert` or `save_pretrained`.")  # fmt: skip
    config = MoECLIPConfig.from_pretrained(folder)
    base = config.base_model_name_or_path
    if base is not None and is_local_path(base):
        if config.adapters_only:
            raise ValueError(
                f"{folder} holds adapters only and their CLIP is a path of this machine ({base}), so nobody else could load "
                "them: save the whole model (`moeclip_hf.MoECLIPForAnomalyDetection.from_pretrained(FOLDER)"
                ".save_pretrained(OTHER_FOLDER, adapters_only=False)`), put copies of the processor's files, of "
                f"{TRAINING_RECORD_NAME} and of {RECIPE_NAME} beside it and push that, or write the CLIP's Hub id into "
                f"`base_model_name_or_path` of {folder / CONFIG_NAME} if it has one."
            )
        config.base_model_name_or_path = None  # whole weights need no CLIP, and the path is nobody else's business
    if config.adapters_only and base is None:
        raise ValueError(
            f"{folder / CONFIG_NAME} names no CLIP for its adapters: add its Hub id as `base_model_name_or_path`."
        )
    return config


def _missing_weights(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if pickles:
        return f"{folder} holds weights as a pickle ({pickles[0]}) and none in safetensors: save them by `save_pretrained`."
    return f"{folder} has no {SAFE_WEIGHTS_NAME}: name a folder with a trained model."


def _meta_model(config: MoECLIPConfig) -> MoECLIPForAnomalyDetection:
    with torch.device("meta"):
        return MoECLIPForAnomalyDetection(config)


def _expected_shapes(config: MoECLIPConfig) -> dict[str, tuple[int, ...]]:
    state_dict = _meta_model(config).state_dict()
    return {
        name: tuple(tensor.shape)
        for name, tensor in state_dict.items()
        if is_adapter_key(name) or not config.adapters_only
    }


def _write_model_files(folder: Path, config: MoECLIPConfig) -> dict[str, bytes]:
    """Configuration, code and processor as this version of the package writes them."""
    model = _meta_model(config)
    model.to(config.dtype or torch.float32)
    try:
        processor = MoECLIPProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} has no processor that can be read: put the one of its CLIP into it "
            "(`MoECLIPProcessor.from_clip(CLIP, model.config).save_pretrained(FOLDER)`)."
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        # without weights: those of the folder are taken as they are
        model.save_pretrained(scratch, adapters_only=config.adapters_only, state_dict={})
        processor.save_pretrained(scratch)
        written = {path.name: path.read_bytes() for path in Path(scratch).iterdir() if path.is_file()}
    return {name: content for name, content in written.items() if not name.endswith(".safetensors")}


def find_results(folder: Path) -> list[Path]:
    """Finds the results files that lie in a model folder or in its `results/`.

    Args:
        folder (`Path`): The model folder.

    Returns:
        `list[Path]`: The files, sorted by name.

    Raises:
        ValueError: If a JSON file there is damaged.
    """
    candidates = [*sorted(folder.glob("*.json")), *sorted((folder / RESULTS_FOLDER).glob("*.json"))]
    return [path for path in candidates if _is_results(_read_json(path))]


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): mend or remove it.") from error


def _is_results(content) -> bool:
    has_parts = isinstance(content, dict) and all(isinstance(content.get(part), dict) for part in RESULTS_PARTS)
    return has_parts and "benchmarks" not in content["meta"]  # a summary of several data sets, whose own files count


def _check_weights(meta: Mapping, path: Path, folder: Path) -> None:
    """Refuses results that record of which weights they are, if those are not the folder's."""
    expected = meta.get("model_sha256")
    if expected is None:
        return
    own = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as content:
            own[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    if own != expected:
        raise ValueError(
            f"{path} was measured on other weights than those in {folder} (by their SHA-256): evaluate these, or name their "
            "results."
        )


def _check_figures(content: Mapping, path: Path) -> None:
    for name, row in {"mean": content["mean"], **content["classes"]}.items():
        for metric in METRICS:
            value = row.get(metric) if isinstance(row, dict) else row
            if not (value is None or (type(value) in (int, float) and 0 <= value <= 1)):
                raise ValueError(f"{path}: {metric} of {name!r} is {value!r}, but must be a number in [0, 1] or null.")


def _to_json(content: Mapping) -> bytes:
    return (json.dumps(_without_local_paths(content), indent=2, ensure_ascii=False) + "\n").encode()


def _without_local_paths(value):
    """Cuts absolute paths to their last part: where the files lay on this machine is nobody else's business."""
    if isinstance(value, Mapping):
        return {key: _without_local_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_local_paths(item) for item in value]
    return os.path.basename(os.path.normpath(value)) if isinstance(value, str) and os.path.isabs(value) else value


@torch.inference_mode()
def _draw_example(folder: Path, image: Image.Image, object_name: str) -> bytes:
    model = MoECLIPForAnomalyDetection.from_pretrained(folder)
    processor = MoECLIPProcessor.from_pretrained(folder)
    outputs = model(**processor(images=image, object_names=object_name))
    sizes = [(image.height, image.width)]
    (result,) = processor.post_process_anomaly_detection(outputs, target_sizes=sizes)
    tiles = [image, overlay_anomaly_map(image, result["anomaly_map"])]
    sheet = make_sheet([tiles], column_titles=[object_name, "anomaly map"], legend=make_legend(), tile_size=336)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
