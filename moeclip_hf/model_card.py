"""The model card: what a repository holds, told from its own files and from nothing else.

A figure is stated only from a results file, training data only from the training record. What neither tells is said to
be unknown.
"""

import os
from collections.abc import Mapping, Sequence

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .configuration_moeclip import MoECLIPConfig
from .version import __version__


METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
}
TAGS = ("anomaly-detection", "zero-shot", "moe", "lora")
# Licences by the Hub's identifiers, of those that the data sets' own licences may be.
HUB_LICENCES = {"cc-by-nc-sa-4.0", "cc-by-nc-4.0"}
MOST_NAMES = 30

TEMPLATE = """\
# {title}

{what_it_is}

{weights}
{example}
## Use

```python
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{repo_id}", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("{repo_id}", trust_remote_code=True)
image = Image.open("part.png").convert("RGB")
with torch.no_grad():
    outputs = model(**processor(images=image, object_names="metal nut"))
sizes = [(image.height, image.width)]
(result,) = processor.post_process_anomaly_detection(outputs, target_sizes=sizes)
print(result["score"], result["anomaly_map"].shape)
```

This needs `torch`, `transformers` (5.23 or newer), `peft`, `safetensors`, `huggingface_hub`, `Pillow` and `numpy`.
`trust_remote_code=True` runs the Python files of this repository: read them, and name their commit as `revision`.
With the package `moeclip_hf` installed, `import moeclip_hf` first and leave `trust_remote_code` out.

{limits}

## Training

{training}

## Evaluation

{evaluation}

## Licence

{licence}

{citation}

Written by moeclip_hf {version} from the files of this repository.
"""

RECIPE_TEMPLATE = """\
# {title}

{what_it_is}

{about}

This is the model's configuration, its processor's, and its recipe; there are no weights here.

## Use

```bash
moeclip train --recipe hub_configs/{name}/{recipe} --data my_data --output outputs/{name}
moeclip push outputs/{name} user/{name}
```

in a checkout of the package, trains the model on your data and sends it to the Hub with a card of its own.{benchmarks}

{limits}

## Evaluation

Figures belong to weights, and stand on the card of those.

## Licence

- These files are under Apache-2.0.
- {clip_terms}
- Weights come under the terms of the data they are trained on too: MVTec AD's exclude commercial use.

{citation}
"""

LIMITS = """\
## Intended use and limits

For finding what looks unusual on pictures of one named object, as a hint for a person who looks again, and for
research. `smoothing="medical"` in `post_process_anomaly_detection` suits medical images.

Not for diagnosis, nor for any decision where a missed defect harms someone. Scores and maps are not calibrated: a
threshold has to be found on pictures of your own. An object's usual marks, or an unusual view or light, can look like
defects to the model, and defects that do not look unusual are missed."""

PROTOCOL = """\
Protocol: per object over its whole test set, at the model's input size ({image_size} x {image_size} pixels), with the
smoothing and score fusion of the paper for the results' domain, then the mean over the objects."""

CITATION = """\
## Citation

```bibtex
@inproceedings{park2026moeclip,
  title = {MoECLIP: Patch-Specialized Experts for Zero-shot Anomaly Detection},
  author = {Park, Jun Yeong and Seo, JunYoung and Kang, Minji and Park, Yu Rang},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2026}
}
```"""


def create_model_card(
    config: MoECLIPConfig,
    repo_id: str,
    *,
    record: Mapping | None = None,
    results: Mapping[str, Mapping] | None = None,
    has_recipe: bool = False,
    example: tuple[str, str] | None = None,
) -> ModelCard:
    """Writes the card of a model repository.

    Args:
        config ([`MoECLIPConfig`]): The model's configuration; a `base_model_name_or_path` in it counts as a Hub id
            unless it is a path.
        repo_id (`str`): `user/name` of the repository, or the path of a folder.
        record (`Mapping`, *optional*): The training record; None if there is none.
        results (`Mapping[str, Mapping]`, *optional*): Contents of the results files by their path in the repository.
        has_recipe (`bool`, *optional*, defaults to `False`): Whether the repository holds a `recipe.json`.
        example (`tuple[str, str]`, *optional*): Path of an example picture in the repository, and what it shows.

    Returns:
        `ModelCard`: The card, with its metadata.
    """
    results = {} if results is None else results
    base = hub_base(config)
    title = repo_id.rstrip("/").rpartition("/")[2]
    licence, terms = describe_licence(base, record)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        base_model=base,
        base_model_relation=None if base is None else "adapter",
        tags=list(TAGS),
        model_name=title,
        eval_results=_eval_results(results, record) or None,
        **licence,
    )
    text = TEMPLATE.format(
        title=title,
        repo_id=repo_id,
        what_it_is=describe_model(config),
        weights=_describe_weights(config, base),
        example="" if example is None else f"\n![{_cell(example[1])}]({example[0]})\n\n{_cell(example[1])}\n",
        limits=LIMITS,
        training=describe_training(record, has_recipe),
        evaluation=describe_results(results, record, config),
        licence=terms,
        citation=CITATION,
        version=__version__,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def create_recipe_card(config: MoECLIPConfig, name: str, title: str, about: str, recipes: Sequence[str]) -> ModelCard:
    """Writes the card of a folder that holds a configuration and recipes, without weights.

    Args:
        config ([`MoECLIPConfig`]): The model's configuration.
        name (`str`): The folder's name.
        title (`str`): What the card calls the model.
        about (`str`): What is to be said of this choice.
        recipes (`Sequence[str]`): Names of the recipe files, that without data first.

    Returns:
        `ModelCard`: The card, with its metadata.
    """
    base, named = hub_base(config), [f"`{recipe}`" for recipe in recipes[1:]]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        license="apache-2.0",
        base_model=base,
        base_model_relation=None if base is None else "adapter",
        tags=list(TAGS),
    )
    text = RECIPE_TEMPLATE.format(
        title=title,
        what_it_is=describe_model(config),
        about=about,
        name=name,
        recipe=recipes[0],
        benchmarks=f"\n{_enumerate(named)} train as the paper does: on VisA, and on MVTec AD where VisA itself is tested."
        if named
        else "",
        limits=LIMITS,
        clip_terms=_describe_clip_terms(base),
        citation=CITATION,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def is_local_path(name: str) -> bool:
    """Tells a path on this machine from an id on the Hub.

    Args:
        name (`str`): Either of the two.

    Returns:
        `bool`: Whether it is a path.
    """
    return os.path.isabs(name) or name.startswith((".", "~")) or os.path.isdir(name) or name.count("/") > 1


def hub_base(config: MoECLIPConfig) -> str | None:
    """Finds the CLIP under a model on the Hub.

    Args:
        config ([`MoECLIPConfig`]): The model's configuration.

    Returns:
        `str` or `None`: Its id, None if it is not known or lies on this machine.
    """
    base = config.base_model_name_or_path
    return None if base is None or is_local_path(base) else base


def describe_model(config: MoECLIPConfig) -> str:
    """Says what the model does and how it is built.

    Args:
        config ([`MoECLIPConfig`]): The model's configuration.

    Returns:
        `str`: A paragraph.
    """
    vision = config.vision_config
    text = (
        "Zero-shot anomaly detection by [MoECLIP](https://arxiv.org/abs/2603.03101): given an image and the name of the\n"
        "object on it, the model returns an anomaly map and an anomaly score, for objects that it need not have been\n"
        f"trained on. It is a frozen CLIP ({vision.num_hidden_layers} layers of width {vision.hidden_size}, patches of "
        f"{vision.patch_size} pixels) at {vision.image_size} x {vision.image_size} pixels"
    )
    if config.moe_lora is None:
        return f"{text}, without experts."
    experts, chosen = config.moe_lora["num_experts"], config.moe_lora["num_experts_per_tok"]
    layers = _enumerate(config.moe_lora["layers_to_transform"])
    return (
        f"{text},\nwith {experts} low-rank experts after encoder layers {layers} (counted from 0); a router sends each "
        f"patch to {chosen} of\nthem."
    )


def describe_training(record: Mapping | None, has_recipe: bool) -> str:
    """Says on what and how a model was trained.

    Args:
        record (`Mapping` or `None`): The training record.
        has_recipe (`bool`): Whether the repository holds a `recipe.json`.

    Returns:
        `str`: Paragraphs.
    """
    recipe = "The recipe's values are in `recipe.json`." if has_recipe else ""
    if record is None:
        return f"This repository has no record of the training: on what data, and how long, is not known. {recipe}".strip()
    objects = list(record.get("object_names") or ())
    facts = {
        "data": _name_data(record),
        "images": record.get("num_images"),
        "objects": _enumerate(objects) if 0 < len(objects) <= MOST_NAMES else len(objects) or None,
        "recipe": record.get("recipe") or record.get("preset"),
        "epochs": record.get("num_train_epochs"),
        "steps": record.get("global_step"),
        "learning rate": record.get("learning_rate"),
        "images a step": record.get("batch_size"),
        "seed": record.get("seed"),
    }
    rows = [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    return f"{table}\n\nCLIP stays frozen. The whole record is in `training.json`. {recipe}".strip()


def describe_results(results: Mapping[str, Mapping], record: Mapping | None, config: MoECLIPConfig) -> str:
    """Lays the measured figures out as a table.

    Args:
        results (`Mapping[str, Mapping]`): Contents of the results files by their path in the repository.
        record (`Mapping` or `None`): The training record.
        config ([`MoECLIPConfig`]): The model's configuration.

    Returns:
        `str`: Paragraphs.
    """
    if not results:
        return "No results file lies in this repository, so no figure is stated here."
    head = ["data", *METRICS.values(), "objects", "domain", "file"]
    rows = [head, ["---"] * len(head)]
    for path, found in results.items():
        trained_on = " (its training data: not zero-shot)" if is_training_data(found, record) else ""
        figures = [_percent(found["mean"].get(metric)) for metric in METRICS]
        domain = found["meta"].get("smoothing", "-")
        file = f"[{os.path.basename(path)}]({path})"
        rows.append([_cell(_name_data(found["meta"])) + trained_on, *figures, len(found["classes"]), domain, file])
    table = "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    seen = _shared_objects(results, record)
    note = (
        f"\n\nThe training had pictures of {_cell(seen)} too: for these the figures are not zero-shot." if seen else ""
    )
    protocol = PROTOCOL.format(image_size=config.vision_config.image_size)
    return f"In percent; `-` where the data do not define a figure.\n\n{table}\n\n{protocol}{note}"


def describe_licence(base: str | None, record: Mapping | None) -> tuple[dict[str, str], str]:
    """Collects the terms that bind a repository's parts, the training data's among them.

    Args:
        base (`str` or `None`): Hub id of the CLIP.
        record (`Mapping` or `None`): The training record.

    Returns:
        `tuple[dict[str, str], str]`: Entries of the card's metadata, and the section's text.
    """
    identifier, data = _data_terms(record)
    metadata = {"license": identifier}
    if identifier == "other":
        metadata |= {"license_name": "see-the-card", "license_link": "README.md"}
    return metadata, f"- The Python files are under Apache-2.0.\n- {_describe_clip_terms(base)}\n- {data}"


def is_training_data(results: Mapping, record: Mapping | None) -> bool:
    """Tells whether results were measured on the data that the model was trained on.

    Args:
        results (`Mapping`): Content of a results file.
        record (`Mapping` or `None`): The training record.

    Returns:
        `bool`: True if both name the same benchmark or the same data, or the results say so themselves.
    """
    if results["meta"].get("trained_objects"):
        return True
    if record is None:
        return False
    benchmarks = {results["meta"].get("benchmark"), record.get("benchmark")}
    if None not in benchmarks:
        return len(benchmarks) == 1
    data = results["meta"].get("data"), record.get("data")
    return None not in data and len({os.path.normpath(str(name)) for name in data}) == 1


def _describe_weights(config: MoECLIPConfig, base: str | None) -> str:
    if not config.adapters_only:
        return "The weights are whole: CLIP is among them."
    if base is None:
        return "The weights are the trained part alone. The CLIP they belong to lies on the machine where they were trained."
    revision = f" at revision `{config.base_model_revision}`" if config.base_model_revision else ""
    return f"The weights are the trained part alone; loading them fetches the CLIP `{base}`{revision} too."


def _describe_clip_terms(base: str | None) -> str:
    if base is None:
        return "The CLIP under it has terms of its own, which are not recorded here."
    return f"The CLIP under it has terms of its own: see [{base}](https://huggingface.co/{base})."


def _data_terms(record: Mapping | None) -> tuple[str, str]:
    """The Hub's identifier of the licence that the training data lead to, and what the card says of it."""
    if record is None:
        return "other", "It is not recorded on what data the weights were trained, nor under which terms."
    benchmark = _find_benchmark(record.get("benchmark"))
    if benchmark is None:
        return (
            "other",
            f"The weights were trained on {_cell(_name_data(record))}; the terms of these data are not recorded here.",
        )
    trained = f"The weights were trained on {benchmark.title} ({benchmark.home_page}), licence: {benchmark.licence}."
    if benchmark.non_commercial is None:
        return "other", f"{trained} Whether that allows commercial use is not known: ask its owners first."
    if benchmark.non_commercial:
        identifier = benchmark.licence.lower().replace(" ", "-")
        identifier = identifier if identifier in HUB_LICENCES else "other"
        return identifier, f"{trained} **The data are for non-commercial use only: so are these weights.**"
    return "other", f"{trained} It allows commercial use under its conditions."


def _find_benchmark(key: str | None):
    if key is None:
        return None
    # the benchmarks' module lies beside code that needs `datasets`, which a card of other data has no use for
    from .data.benchmarks import BENCHMARKS

    return BENCHMARKS.get(key)


def _eval_results(results: Mapping[str, Mapping], record: Mapping | None) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="Zero-shot anomaly detection",
            dataset_type=_slug(found["meta"].get("benchmark") or _name_data(found["meta"])),
            dataset_name=_name_data(found["meta"]),
            dataset_split=found["meta"].get("split"),
            metric_type=metric,
            metric_name=title,
            metric_value=round(found["mean"][metric], 4),
        )
        for found in results.values()
        if not is_training_data(found, record) and not _trained_classes(found, record)
        for metric, title in METRICS.items()
        if found["mean"].get(metric) is not None
    ]


def _name_data(values: Mapping) -> str:
    """The benchmark's title, or the last part of the path of other data."""
    data = values.get("data")
    benchmark = _find_benchmark(values.get("benchmark") or data)  # a benchmark may stand there by its key
    if benchmark is not None:
        return benchmark.title
    return "data without a name" if data is None else os.path.basename(os.path.normpath(str(data)))


def _shared_objects(results: Mapping[str, Mapping], record: Mapping | None) -> str:
    others = [found for found in results.values() if not is_training_data(found, record)]
    return _enumerate(sorted({name for found in others for name in _trained_classes(found, record)}))


def _trained_classes(found: Mapping, record: Mapping | None) -> set[str]:
    return set((record or {}).get("class_names") or ()) & {*found["classes"]}


def _enumerate(values: Sequence) -> str:
    names = [str(value) for value in values]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _cell(value) -> str:
    """A value from a file as plain text: nothing in it may end a table's cell or begin markup."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name.lower()).strip("-") or "unnamed"
