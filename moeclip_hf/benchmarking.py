"""A model on the paper's benchmarks, one after the other: a results file for each and a summary of all.

The files of a run that was interrupted are kept, so that the next one goes on where it stopped. Everything here is done
alike on all processes of a run on several; the first one alone writes.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .data.benchmarks import BENCHMARKS, Benchmark, describe_count_differences, get_benchmark
from .evaluation import METRICS, average_defined, evaluate_model, summarize_reasons, write_results
from .json_file import read_json_object
from .model_identity import describe_model
from .prompts_moeclip import GENERIC_OBJECT_NAME
from .timing import StageTimer


logger = logging.getLogger(__name__)

SUMMARY_NAME = "results.json"


def find_benchmarks(data_root: str | os.PathLike, keys: Sequence[str] | None = None) -> dict[str, Path]:
    """Finds the benchmarks in a folder.

    Args:
        data_root (`str` or `os.PathLike`): Folder in which each benchmark has its own, named by its key.
        keys (`Sequence[str]`, *optional*): The benchmarks to find, by default those that are there.

    Returns:
        `dict[str, Path]`: the folder of each, in the paper's order.

    Raises:
        FileNotFoundError: If `data_root` or the folder of a named benchmark does not exist, or there is none at all.
        ValueError: If a key is not one of [`BENCHMARKS`].
    """
    data_root = Path(data_root)
    if not data_root.is_dir():
        raise FileNotFoundError(
            f"`data_root` {str(data_root)!r} is no folder: name the one that holds the benchmarks."
        )
    wanted = list(BENCHMARKS) if keys is None else [get_benchmark(key).key for key in keys]
    folders = {key: data_root / key for key in BENCHMARKS if key in wanted}
    absent = [key for key, folder in folders.items() if not folder.is_dir()]
    if absent and keys is not None:
        raise FileNotFoundError(
            f"`data_root` {str(data_root)!r} holds no folder {absent[0]!r}: link the benchmark there or leave it out."
        )
    if len(absent) == len(folders):
        raise FileNotFoundError(
            f"`data_root` {str(data_root)!r} holds none of the folders {', '.join(absent)}: name the folder that holds "
            "them, or link them there."
        )
    return {key: folder for key, folder in folders.items() if key not in absent}


def find_trained_objects(
    record: dict | None, benchmark: Benchmark, class_names: Iterable[str] = (), object_names: Iterable[str] = ()
) -> list[str]:
    """Finds what of a benchmark a model was trained on.

    Args:
        record (`dict` or `None`): The model's training record.
        benchmark ([`Benchmark`]): The benchmark.
        class_names (`Iterable[str]`): Names of classes beside those of the benchmark's table, e.g. of a list.
        object_names (`Iterable[str]`): Names of objects, likewise.

    Returns:
        `list[str]`: the classes and objects that the record names, all of the benchmark's if it was trained on that.
    """
    if record is None:
        return []
    if record["benchmark"] == benchmark.key:
        return list(benchmark.object_names)
    names = [*benchmark.object_names, *benchmark.object_names.values(), *class_names, *object_names]
    trained = {_plain(name) for name in (*record["class_names"], *record["object_names"])}
    # The name of things that have none says nothing about what they are.
    trained.discard(GENERIC_OBJECT_NAME)
    return [name for name in dict.fromkeys(names) if _plain(name) in trained]


def run_benchmarks(
    model,
    processor,
    model_name: str,
    data_root: str | os.PathLike,
    output: str | os.PathLike,
    *,
    benchmarks: Sequence[str] | None = None,
    allow_trained_objects: bool = False,
    strict: bool = False,
    mask_threshold: int | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
    is_main_process: bool = True,
    report: Callable[[dict, bool], None] = lambda results, is_new: None,
) -> dict:
    """Evaluates a model on benchmarks and writes `<key>.json` for each and the summary `results.json`.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model, on its device.
        processor ([`MoECLIPProcessor`]): Its processor.
        model_name (`str`): The folder or Hub id that it was loaded from, for its hashes and its training record.
        data_root (`str` or `os.PathLike`): Folder in which each benchmark has its own, named by its key.
        output (`str` or `os.PathLike`): Folder of the results. Benchmarks that have a file there are not evaluated anew.
        benchmarks (`Sequence[str]`, *optional*): Keys of the benchmarks, by default all that are in `data_root`.
        allow_trained_objects (`bool`, *optional*, defaults to `False`): Whether to evaluate on objects on which the
            model was trained; the results are marked. Otherwise a named benchmark that has such is an error, and one
            that is not named is left out.
        strict (`bool`, *optional*, defaults to `False`): Whether a picture that cannot be read is an error.
        mask_threshold (`int`, *optional*): A pixel is anomalous if its mask is greater; by default each benchmark's.
        batch_size (`int`, *optional*, defaults to 8): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images beside this one.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars on stderr.
        is_main_process (`bool`, *optional*, defaults to `True`): Whether this one of several processes writes.
        report (`Callable`, *optional*): Called with the results of each benchmark, and whether they are new.

    Returns:
        `dict`: the summary, in the form of [`~evaluation.evaluate_model`]'s results with data sets for classes.

    Raises:
        ValueError: If an argument does not fit, the model was trained on a benchmark's objects, or `output` holds
            results of another model or other settings.
        OSError: If a folder does not exist or a file cannot be written.
    """
    output, folders = Path(output), find_benchmarks(data_root, benchmarks)
    absent = [key for key in BENCHMARKS if key not in folders]
    if absent and benchmarks is None:
        logger.info("%s holds no folder %s: left out.", data_root, ", ".join(absent))
    identity = describe_model(model, model_name)
    if identity["training"] is None:
        logger.warning(
            "%s has no training record, so whether it was trained on these objects is not known.", model_name
        )
    trained_on = {key: find_trained_objects(identity["training"], BENCHMARKS[key]) for key in folders}
    skipped = _check_trained_objects(trained_on, model_name, benchmarks, allow_trained_objects)
    common = {
        "image_size": model.config.vision_config.image_size,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    settings = {
        key: {
            "data": str(folder.resolve()),
            "mask_threshold": BENCHMARKS[key].mask_threshold if mask_threshold is None else mask_threshold,
            **common,
        }
        for key, folder in folders.items()
    }
    finished = read_finished(output)
    skipped = {key: reason for key, reason in skipped.items() if key not in finished}
    for key, results in finished.items():
        _check_finished(output / f"{key}.json", results["meta"], identity | settings.get(key, common))
        if strict and results["meta"]["num_left_out"]:
            raise ValueError(
                f"{output / f'{key}.json'} was measured without {results['meta']['num_left_out']} of the pictures: move "
                "that file away, or leave --strict out."
            )
    for key in settings:
        if key in skipped:
            continue
        is_new = key not in finished
        if is_new:
            finished[key] = _run_benchmark(
                model, processor, BENCHMARKS[key], identity | settings[key], allow_trained_objects, strict,
                batch_size=batch_size, num_workers=num_workers, progress=progress,
            )  # fmt: skip
            if is_main_process:
                _write_timed(finished[key], output / f"{key}.json")
        report(finished[key], is_new)
    summary = summarize({key: finished[key] for key in BENCHMARKS if key in finished}, identity, skipped)
    if is_main_process:
        write_results(summary, output / SUMMARY_NAME)
    return summary


def read_finished(folder: str | os.PathLike) -> dict[str, dict]:
    """Reads the results of benchmarks from a folder.

    Args:
        folder (`str` or `os.PathLike`): Output folder of [`run_benchmarks`]; it may be missing.

    Returns:
        `dict[str, dict]`: results by the benchmark's key, in the paper's order, with NaN for undefined metrics.

    Raises:
        ValueError: If a file does not hold results of the benchmark that it is named by.
    """
    found = {}
    for key in BENCHMARKS:
        path = Path(folder, f"{key}.json")
        if path.is_file():
            results = read_json_object(path)
            has_parts = all(isinstance(results.get(part), dict) for part in ("mean", "classes", "meta"))
            if not has_parts or results["meta"].get("benchmark") != key:
                raise ValueError(f"{path} holds no results of `moeclip benchmark`: move it away.")
            for values in (results["mean"], *results["classes"].values()):
                values.update({metric: math.nan for metric, value in values.items() if value is None})
            found[key] = results
    return found


def summarize(found: dict[str, dict], identity: dict, skipped: dict[str, str]) -> dict:
    """Brings the results of several benchmarks into one of the same form, with data sets in place of classes.

    Args:
        found (`dict[str, dict]`): Results by the benchmark's key.
        identity (`dict`): What the results' `meta` says of the model.
        skipped (`dict[str, str]`): For benchmarks that were left out, why.

    Returns:
        `dict`: means over the data sets where a metric is defined.
    """
    classes = {key: results["mean"] for key, results in found.items()}
    mean = {metric: average_defined([values[metric] for values in classes.values()]) for metric in METRICS}
    reasons = {key: summarize_reasons(results) for key, results in found.items()}
    kept = (
        "title", "data", "smoothing", "mask_threshold", "num_images", "num_anomalous", "num_left_out",
        "count_differences", "trained_objects", "num_processes", "device", "created", "seconds", "stage_seconds",
    )  # fmt: skip
    latest = max((results["meta"] for results in found.values()), key=lambda meta: meta["created"])
    return {
        "mean": mean,
        "classes": classes,
        "meta": {
            **identity,
            **{name: latest[name] for name in ("image_size", "dtype", "versions", "commit", "created")},
            "seconds": round(sum(results["meta"]["seconds"] for results in found.values()), 1),
            "trained_objects": {
                key: results["meta"]["trained_objects"]
                for key, results in found.items()
                if results["meta"]["trained_objects"]
            },
            "skipped": skipped,
            "benchmarks": {key: {name: results["meta"][name] for name in kept} for key, results in found.items()},
            "reasons": {
                "mean": {metric: "undefined for every data set" for metric in METRICS if math.isnan(mean[metric])},
                "classes": {key: found for key, found in reasons.items() if found},
            },
        },
    }


def _check_trained_objects(
    trained_on: dict[str, list[str]], model_name: str, named: Sequence[str] | None, is_allowed: bool
) -> dict[str, str]:
    """Gives the benchmarks that are left out, and why."""
    found = {key: names for key, names in trained_on.items() if names}
    if is_allowed or not found:
        return {}
    key, names = next(iter(found.items()))
    if named is not None or len(found) == len(trained_on):
        raise ValueError(
            f"{model_name} was trained on objects of {key} ({_shorten(names)}), so its figures there are not zero-shot: "
            f"leave {key} out of --benchmarks or pass --allow-trained-objects, which marks the results."
        )
    for key, names in found.items():
        logger.warning(
            "%s: left out, since the model was trained on its objects (%s); --allow-trained-objects evaluates it, too.",
            key, _shorten(names),
        )  # fmt: skip
    return {key: f"the model was trained on its objects: {_shorten(names)}" for key, names in found.items()}


def _check_finished(path: Path, meta: dict, expected: dict) -> None:
    """Raises an error if results in the folder are not those that this run would give."""
    meta, expected = _flatten_hashes(meta), _flatten_hashes(expected)
    for name in ("model_sha256", "base_sha256", "data", "image_size", "mask_threshold", "dtype"):
        if name in expected and meta.get(name) != expected[name]:
            what = (
                "another model" if name.endswith("sha256") else f"`{name}` {meta.get(name)!r}, not {expected[name]!r}"
            )
            raise ValueError(f"{path} holds results of {what}: name another --output, or move that file away.")


def _flatten_hashes(meta: dict) -> dict:
    base = meta.get("base_model")
    return meta | {"base_sha256": base and base["model_sha256"]}


def _run_benchmark(
    model, processor, benchmark: Benchmark, about: dict, allow_trained_objects: bool, strict: bool, **options
) -> dict:
    from .data.loading import read_benchmark

    timer = StageTimer()
    with timer("loading"):
        dataset, left_out = read_benchmark(benchmark.key, about["data"], strict=strict)
    class_names, labels = list(dataset["class_name"]), list(dataset["label"])
    trained = find_trained_objects(about["training"], benchmark, set(class_names), set(dataset["object_name"]))
    if not allow_trained_objects:
        _check_trained_objects({benchmark.key: trained}, about["model"], [benchmark.key], is_allowed=False)
    mask_threshold = about["mask_threshold"]
    results = evaluate_model(
        model, processor, dataset, smoothing=benchmark.domain, mask_threshold=mask_threshold, **options
    )
    meta = results["meta"]
    # A process without a batch of its own has not waited for one.
    waiting = meta["stage_seconds"].get("loading", 0.0)
    meta["stage_seconds"]["loading"] = round(timer.rounded()["loading"] + waiting, 2)
    results["meta"] = {
        "benchmark": benchmark.key,
        "title": benchmark.title,
        **about,
        **{name: value for name, value in meta.items() if name not in about},
        "seconds": round(timer.total(), 1),
        "num_left_out": len(left_out),
        "left_out": left_out,
        "count_differences": describe_count_differences(benchmark, class_names, labels),
        "trained_objects": trained,
    }
    return results


def _write_timed(results: dict, path: Path) -> None:
    timer = StageTimer()
    with timer("writing"):
        write_results(results, path)
    # Known only now that it is written.
    results["meta"]["stage_seconds"] |= timer.rounded()
    write_results(results, path)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
