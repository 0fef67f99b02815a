"""The steps from the options of `moeclip ablate` to an ablation's variants and data."""

import argparse
import logging

from ..data.benchmarks import find_domain
from .ablation import AblationSetting
from .options import get_recipe_changes
from .recipe import get_run_arguments, load_other_images, load_training_images, make_training_samples, settle_options
from .recipe_file import Recipe, parse_changes, read_recipe, read_variant


logger = logging.getLogger(__name__)

_DATA_OPTIONS = ("data", "root", "split", "object_name", "mask_threshold")


def read_variants(options: argparse.Namespace) -> dict[str, Recipe]:
    """Reads the recipes that are compared.

    Args:
        options (`argparse.Namespace`): The options of `moeclip ablate`; those that the recipes decide are set.

    Returns:
        `dict[str, Recipe]`: The recipes by their titles, those of files first.

    Raises:
        SystemExit: If there is none, or one names no CLIP or no training data.
        ValueError: If a recipe is wrong, two have the same title, or they differ in their training data.
        OSError: If a file cannot be read.
    """
    if not options.recipes and not options.variant:
        options.usage_error("the following arguments are required: --recipes or --variant")
    changes = get_recipe_changes(options) | parse_changes(options.set, "--set")
    base = None if options.base is None else read_recipe(options.base)
    recipes = [read_variant(path, base=base, changes=changes) for path in options.recipes]
    shared = (Recipe() if base is None else base).change(changes)
    recipes += [_make_variant(shared, title, pairs) for title, *pairs in options.variant]
    variants: dict[str, Recipe] = {}
    for recipe in recipes:
        if variants.setdefault(recipe.title, recipe) is not recipe:
            raise ValueError(f"Two variants are called {recipe.title!r}: give one another title.")
        settle_options(options, recipe)
    sources = sorted({recipe.values["data"] for recipe in recipes})
    if len(sources) > 1:
        raise ValueError(f"The recipes name different training data, {' and '.join(sources)}: choose one by --data.")
    return variants


def load_setting(options: argparse.Namespace, variants: dict[str, Recipe]) -> AblationSetting:
    """Loads the data of an ablation.

    Args:
        options (`argparse.Namespace`): The options of `moeclip ablate`, settled by `read_variants`.
        variants (`dict[str, Recipe]`): What it returned.

    Returns:
        [`AblationSetting`]: What all runs share.

    Raises:
        FileNotFoundError: If the data do not exist.
        ValueError: If they cannot be read or the test data are the training data.
    """
    for recipe in variants.values():
        get_run_arguments(options, recipe)  # a recipe for a GPU fails now
    smoothing = options.domain or find_domain(options.test_data, options.test_root)
    test_data = load_other_images(options, "test")
    images = load_training_images(options)
    seen = sorted(set(images["class_name"]) & set(test_data["class_name"]))
    if seen:
        logger.warning(
            "--test-data has classes that are trained on, so this is no zero-shot test: %s.", ", ".join(seen)
        )
    names = (*_DATA_OPTIONS, "test_data", "test_root", "test_split")
    return AblationSetting(
        load_training_samples=lambda recipe, processor: make_training_samples(
            images, recipe, processor, options.mask_threshold
        ),
        test_data=test_data,
        get_run_arguments=lambda recipe: get_run_arguments(options, recipe),
        description={name: getattr(options, name) for name in names} | {"seen_classes": seen},
        smoothing=smoothing,
        num_workers=options.num_workers,
        mask_threshold=options.mask_threshold,
    )


def _make_variant(shared: Recipe, title: str, pairs: list[str]) -> Recipe:
    changed = shared.change(parse_changes(pairs, "--variant"))
    return Recipe(changed.values, name=title, title=title)
