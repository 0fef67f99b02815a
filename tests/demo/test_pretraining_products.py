"""Products and repeats of the pretraining: their faults, and what they leave out for the sake of the benchmark."""

from dataclasses import replace

import numpy as np
import pytest

from moeclip_hf.demo.benchmark import TEST_CATEGORIES, TRAIN_CATEGORIES
from moeclip_hf.demo.pretraining.fields import Canvas
from moeclip_hf.demo.pretraining.products import PRODUCT_NOUNS, category_scene, draw_product, product_scene
from moeclip_hf.demo.pretraining.repeats import draw_repeat, repeat_scene
from moeclip_hf.demo.pretraining.samples import MIXTURES, draw_sample, find_mixture
from moeclip_hf.demo.pretraining.scenes import SCENES, scene_nouns, structural_irregularity


@pytest.mark.parametrize("build", [product_scene, category_scene, repeat_scene], ids=lambda build: build.__name__)
def test_scenes_are_repainted_the_same_but_for_their_fault(build):
    found = 0
    for seed in range(16):
        scene = build(np.random.default_rng(seed), Canvas(50, 62))
        again = build(np.random.default_rng(seed), Canvas(50, 62))
        assert scene.image.shape == (*scene.canvas.shape, 3)
        assert scene.foreground.shape == scene.canvas.shape
        assert scene.image.min() >= 0
        assert scene.image.max() <= 1
        assert np.array_equal(scene.image, again.image)
        assert np.array_equal(scene.repaint(np.random.default_rng(1)), again.repaint(np.random.default_rng(1)))
        change = structural_irregularity(np.random.default_rng(seed), scene)
        if change is not None:
            found += 1
            difference = np.abs(change.image - scene.image).mean(-1)
            assert difference[change.mask].mean() > 0.05
            assert difference[~change.mask].mean() < 0.01
    assert found > 8


def test_products_show_nothing_that_the_benchmark_tests_on():
    tested = {category.name.replace("_", " ") for category in TEST_CATEGORIES}
    trained = {category.name.replace("_", " ") for category in TRAIN_CATEGORIES}
    drawn = {category_scene(np.random.default_rng(seed), Canvas(8, 8)).noun for seed in range(60)}
    assert drawn <= trained
    assert len(drawn) > 12
    nouns = {noun for nouns in PRODUCT_NOUNS.values() for noun in nouns}
    assert (drawn | nouns).isdisjoint(tested)


def test_products_leave_out_what_would_resemble_a_test_category():
    kinds = {noun: kind for kind, nouns in PRODUCT_NOUNS.items() for noun in nouns}
    seen = set()
    for seed in range(300):
        product, noun = draw_product(np.random.default_rng(seed))
        kind = kinds.get(noun) or kinds[noun.removesuffix("s")]
        seen.add(kind)
        assert kind != "polygon" or len(product.body) != 6
        for group in product.sets:
            middles = np.array([mark.middle for mark in group.marks]).round(6)
            columns, rows = (len(np.unique(axis)) for axis in middles.T)
            is_bar = len(group.marks[0].outline) == 4 and np.abs(group.marks[0].outline[:, 0]).min() == 1
            if kind == "box":
                assert len(middles) <= 4 or columns * rows != len(middles) or 1 in (columns, rows), seed
                assert not (is_bar and rows == 1 and columns > 2), seed
            if kind == "round":
                assert not (group.opens and len(middles) == 1), seed
    assert seen == set(PRODUCT_NOUNS)


def test_the_products_mixture_draws_products_on_canvases_of_their_own():
    mixture = replace(MIXTURES["products"], scenes=(0.0,) * len(SCENES), products=(1.0, 0.0))
    singular = {noun for nouns in PRODUCT_NOUNS.values() for noun in nouns}
    marked = 0
    for number in range(20):
        sample = draw_sample(8, number, 48, irregular_share=1.0, mixture=mixture)
        assert sample.image.shape == (48, 48, 3)
        assert {sample.noun, sample.noun.removesuffix("s")} & singular
        marked += sample.mask.any()
    assert marked > 15


def test_repeats_change_in_the_chosen_cells_alone():
    changed = 0
    for seed in range(30):
        repeat, _ = draw_repeat(np.random.default_rng(seed), Canvas(60, 60), 0.5)
        sound = repeat.render()
        column, row = repeat.cells()
        where = (column == column[30, 30]) & (row == row[30, 30])
        mark = repeat.marks[(column[30, 30] + row[30, 30]) % len(repeat.marks)]
        assert np.array_equal(repeat.render(mark, where), sound)
        missing = repeat.render(replace(mark, present=False), where)
        assert np.array_equal(missing[~where], sound[~where])
        assert np.allclose(missing[where], repeat.ground[where])
        changed += not np.array_equal(missing, sound)
    assert changed > 25


def test_repeats_leave_out_what_would_resemble_a_test_category():
    kinds = set()
    for seed in range(300):
        repeat, nouns = draw_repeat(np.random.default_rng(seed), Canvas(8, 8), 0.5)
        assert {f"{nouns[0]}s", f"set of {nouns[0]}s"} <= set(scene_nouns())
        assert len({mark.angle for mark in repeat.marks}) == 1  # a tread plate's turn from cell to cell
        for mark in repeat.marks:
            outline = mark.outline
            kinds.add(outline.kind)
            assert outline.kind != "disc"
            assert outline.kind != "polygon" or outline.sides <= 5
            assert outline.kind != "box" or outline.roundness >= 0.5  # rods; square tiles are a mosaic's
            assert outline.kind not in ("gear", "blob") or max(abs(wave[1]) for wave in outline.waves) >= 0.1
    assert kinds == {"box", "ring", "polygon", "gear", "blob"}


def test_every_mixture_weighs_one_and_the_last_three_draw_repeats():
    for mixture in MIXTURES.values():
        assert sum(mixture.scenes) + sum(mixture.products) + mixture.repeats == pytest.approx(1)
    drawn = [name for name, mixture in MIXTURES.items() if mixture.repeats]
    assert drawn == ["repeats", "damaged", "structural"]
    only = replace(MIXTURES["repeats"], scenes=(0.0,) * len(SCENES), products=(0.0, 0.0), repeats=1.0)
    samples = [draw_sample(8, number, 48, irregular_share=1.0, mixture=only) for number in range(20)]
    assert all(sample.noun.endswith("s") and sample.foreground.all() for sample in samples)
    assert sum(sample.mask.any() for sample in samples) > 15


def test_built_pictures_are_structural_in_two_of_five():
    assert all(find_mixture(name, number) is mixture for name, mixture in MIXTURES.items() for number in range(5))
    built = [find_mixture("built", number) for number in range(500)]
    assert sum(mixture is MIXTURES["structural"] for mixture in built) == 200
    assert sum(mixture is MIXTURES["damaged"] for mixture in built) == 300
