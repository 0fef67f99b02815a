"""Recipe files: everything that makes a training run, as JSON with flat keys; a short one names a base and what differs.

{"base": "recipe.json", "title": "without ETF", "etf_loss_coef": 0.0}
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..json_file import read_json_object, write_json
from .arguments import MoECLIPTrainingArguments
from .presets import Preset


# Of each key the kinds of its values: a type, `list` for whole numbers in a list, None where null is a value of its own.
_RUN_KEYS = {
    "clip": (str,),
    "data": (str,),
    "image_size": (int, None),
    "projections_from_clip": (bool,),
    "augmentation": (bool,),
}
_TRAINING_KEYS = {
    "preset": (str,),
    "seed": (int,),
    "num_train_epochs": (float,),
    "max_steps": (int,),
    "per_device_train_batch_size": (int,),
    "gradient_accumulation_steps": (int,),
    "learning_rate": (float, None),
    "lr_scheduler_type": (str,),
    "lr_milestones": (list,),
    "lr_gamma": (float,),
    "warmup_steps": (int,),
    "optim": (str,),
    "weight_decay": (float,),
    "adam_beta1": (float,),
    "adam_beta2": (float,),
    "adam_epsilon": (float,),
    "max_grad_norm": (float, None),
    "router_aux_loss_coef": (float, None),
    "etf_loss_coef": (float, None),
    "lora_dropout": (float, None),
    "bf16": (bool,),
    "fp16": (bool,),
}
_MODEL_KEYS = {
    "hidden_act": (str, None),
    "moe_lora": (dict, None),
    "feature_layers": (list, None),
    "patch_average_kernel_sizes": (list,),
    "share_patch_projections": (bool,),
    "patch_projection_act": (str, None),
    "use_image_head": (bool,),
}
# The experts' dropout and seed are not among them: they are `lora_dropout` and `seed`, of the training.
_EXPERT_KEYS = {
    "r": (int,),
    "lora_alpha": (float,),
    "num_experts": (int,),
    "num_experts_per_tok": (int,),
    "orthogonal_split": (bool,),
    "adapter_weight": (float,),
    "layers_to_transform": (list, None),
}
RECIPE_KEYS = {**_RUN_KEYS, **_TRAINING_KEYS, **_MODEL_KEYS}
# Those that may be paths, which are relative to the file if they begin so; else they may be ids on the Hub.
_PATH_KEYS, _RELATIVE = ("clip", "data"), ("./", "../")

_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of whole numbers",
    dict: "an object, {...}",
    None: "null",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a training run, up to where its data lie and what it writes.

    Args:
        values (`dict`, *optional*): By the keys of `RECIPE_KEYS`; what is missing has the default of the preset.
        name (`str`, *optional*): Folder and stem of its file, e.g. `"vit_large_patch14_336_paper/recipe_visa"`.
        title (`str`, *optional*): What a table calls it.
    """

    values: dict = field(default_factory=dict)
    name: str | None = None
    title: str | None = None

    @property
    def seed(self) -> int:
        """Seed of first weights, order, augmentation, dropout and routing ties."""
        return self.values.get("seed", MoECLIPTrainingArguments.seed)

    @property
    def preset(self) -> str:
        """Name of the preset."""
        return self.values.get("preset", MoECLIPTrainingArguments.preset)

    @property
    def training_arguments(self) -> dict:
        """The values that are fields of [`MoECLIPTrainingArguments`]."""
        return {key: value for key, value in self.values.items() if key in _TRAINING_KEYS}

    @property
    def model_fields(self) -> dict:
        """The values that describe the model: `hidden_act` and fields of [`MoECLIPConfig`]."""
        return {key: value for key, value in self.values.items() if key in _MODEL_KEYS}

    def change(self, changes: Mapping) -> "Recipe":
        """Makes a recipe of this one's values and others that count more.

        Experts' sizes are changed one by one. Another preset brings its own values along, and a number of epochs is
        not cut short by the old number of steps.

        Args:
            changes (`Mapping`): Checked values by the keys of `RECIPE_KEYS`.

        Returns:
            [`Recipe`]: The changed recipe, of the same name.
        """
        values = dict(self.values)
        if changes.get("preset", self.preset) != self.preset:
            for key in Preset._fields:
                values.pop(key, None)
        if "num_train_epochs" in changes:
            values.pop("max_steps", None)
        experts = values.get("moe_lora") or {}
        values.update(changes)
        if changes.get("moe_lora") is not None:
            values["moe_lora"] = {**experts, **changes["moe_lora"]}
        return dataclasses.replace(self, values=values)


def read_recipe(path: str | os.PathLike) -> Recipe:
    """Reads a recipe file, its bases first.

    `base` is relative to the file that names it, and so are `clip` and `data` where they begin with `./` or `../`.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        [`Recipe`]: The recipe.

    Raises:
        ValueError: If a file is no JSON object, a key is unknown, a value is of the wrong kind or bases form a circle.
        OSError: If a file cannot be read.
    """
    recipe = Recipe()
    for file in reversed(_find_bases(Path(path))):
        recipe = recipe.change(_read_values(file))
    return dataclasses.replace(recipe, name=_name(path), title=_title(path))


def write_recipe(path: str | os.PathLike, recipe: Recipe) -> None:
    """Writes a recipe file without a base, from which `read_recipe` gets the same values.

    Args:
        path (`str` or `os.PathLike`): The file.
        recipe ([`Recipe`]): The recipe. Of its paths, those that the file's place would change are made absolute.

    Raises:
        OSError: If the file cannot be written.
    """
    values = {
        key: os.path.abspath(value) if key in _PATH_KEYS and value.startswith(_RELATIVE) else value
        for key, value in recipe.values.items()
    }
    write_json(path, ({} if recipe.title is None else {"title": recipe.title}) | values)


def read_variant(path: str | os.PathLike, *, base: Recipe | None = None, changes: Mapping | None = None) -> Recipe:
    """Reads a recipe file of an ablation: other changes reach what it shares with its base, not what it says itself.

    Args:
        path (`str` or `os.PathLike`): The file. One without a base has nothing of its own.
        base ([`Recipe`], *optional*): Takes the place of the base that the file names.
        changes (`Mapping`, *optional*): Checked values that change the base.

    Returns:
        [`Recipe`]: The recipe.

    Raises:
        ValueError: If a file is wrong as for `read_recipe`, or has no base that could be replaced.
        OSError: If a file cannot be read.
    """
    changes = {} if changes is None else changes
    bases = _find_bases(Path(path))[1:]
    if not bases:
        if base is not None:
            raise ValueError(f"{path} names no `base` that another could replace: leave it out, or add one.")
        return read_recipe(path).change(changes)
    base = read_recipe(bases[0]) if base is None else base
    recipe = base.change(changes).change(_read_values(Path(path)))
    return dataclasses.replace(recipe, name=_name(path), title=_title(path))


def parse_changes(pairs: Sequence[str], option: str) -> dict:
    """Reads changes of a recipe from a command line.

    Args:
        pairs (`Sequence[str]`):
            `KEY=VALUE` each, the value as in JSON (quotes may be left out); `moe_lora.r=4` changes one of the experts'.
        option (`str`): The command line's option, for errors.

    Returns:
        `dict`: Checked values by the keys of `RECIPE_KEYS`.

    Raises:
        ValueError: If a pair has no `=`, a key is unknown or a value of the wrong kind.
    """
    changes: dict = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"`{option}` ({pair}) must be KEY=VALUE, e.g. etf_loss_coef=0.")
        value = _parse_value(text)
        group, dot, inner = key.partition(".")
        if dot:
            earlier = changes.get(group)
            value, key = {**(earlier if isinstance(earlier, dict) else {}), inner: value}, group
        check_recipe_values({key: value}, f"`{option}`")
        changes[key] = value
    return changes


def check_recipe_values(values: Mapping, where: str) -> None:
    """Checks the keys of a recipe and the kinds of their values; ranges are checked where they are used.

    Args:
        values (`Mapping`): What a recipe says.
        where (`str`): Where it says so, for errors.

    Raises:
        ValueError: If a key is unknown or a value is of the wrong kind.
    """
    _check(values, RECIPE_KEYS, where, "")
    _check(values.get("moe_lora") or {}, _EXPERT_KEYS, where, "moe_lora.")


def _check(values: Mapping, known: dict[str, tuple], where: str, prefix: str) -> None:
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{where} has the unknown key {prefix + key!r}. Known keys: {', '.join(known)}.")
        if not any(_is_of_kind(value, kind) for kind in known[key]):
            kinds = " or ".join(_KINDS[kind] for kind in known[key])
            raise ValueError(f"{where} has `{prefix}{key}` {json.dumps(value)}, which must be {kinds}.")


def _is_of_kind(value, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if kind is list:
        return isinstance(value, list) and all(_is_of_kind(item, int) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _find_bases(path: Path) -> list[Path]:
    """Lists a recipe file, its base, the base's base and so on."""
    files = [path]
    while (base := read_json_object(files[-1]).get("base")) is not None:
        if not isinstance(base, str):
            raise ValueError(f"{files[-1]} has `base` {json.dumps(base)}, which must be the path of a recipe file.")
        files.append(files[-1].parent / base)
        if files[-1].resolve() in [file.resolve() for file in files[:-1]]:
            raise ValueError(f"{path}: its bases form a circle, {' -> '.join(map(str, files))}.")
        if not files[-1].is_file():
            raise FileNotFoundError(f"{files[-2]} names the base {base!r}, but there is no file {files[-1]}.")
    return files


def _read_values(path: Path) -> dict:
    """Reads what one file itself says, checked, its paths relative to the working folder."""
    values = {key: value for key, value in read_json_object(path).items() if key not in ("base", "title")}
    check_recipe_values(values, str(path))
    for key in _PATH_KEYS:
        if key in values and values[key].startswith(_RELATIVE):
            values[key] = os.path.normpath(path.parent / values[key])
    return values


def _name(path: str | os.PathLike) -> str:
    path = Path(path).absolute()
    return f"{path.parent.name}/{path.stem}"


def _title(path: str | os.PathLike) -> str:
    title = read_json_object(path).get("title", Path(path).stem.replace("_", " "))
    if not isinstance(title, str):
        raise ValueError(f"{path} has `title` {json.dumps(title)}, which must be a text.")
    return title


def _parse_value(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text
