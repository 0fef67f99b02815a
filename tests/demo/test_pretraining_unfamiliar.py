"""The things that a pretrained tower is chosen by: drawn by nothing else, and measured as the demo measures."""

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from moeclip_hf.demo import DEMO_CLIP
from moeclip_hf.demo.benchmark import TEST_CATEGORIES, TRAIN_CATEGORIES
from moeclip_hf.demo.benchmark.canvas import Fault
from moeclip_hf.demo.benchmark.drawing import draw_sample
from moeclip_hf.demo.pretraining import unfamiliar
from moeclip_hf.demo.pretraining.products import PRODUCT_NOUNS
from moeclip_hf.demo.pretraining.scenes import scene_nouns
from moeclip_hf.demo.pretraining.unfamiliar import UNFAMILIAR, measure_unfamiliar


@pytest.fixture(scope="module")
def tiny():
    return CLIPModel.from_pretrained(DEMO_CLIP, dtype=torch.float32).eval(), CLIPTokenizer.from_pretrained(DEMO_CLIP)


@pytest.mark.parametrize("category", UNFAMILIAR, ids=lambda category: category.name)
def test_a_fault_is_drawn_into_the_same_scene_and_stays_small(category):
    for seed in range(4):
        sound = category.paint(np.random.default_rng(seed), None)
        again = category.paint(np.random.default_rng(seed), None)
        assert np.array_equal(sound.image, again.image)
        assert 0.05 < (sound.region > 0.5).mean() < 0.9
        for kind in category.structural:
            spoilt = category.paint(np.random.default_rng(seed), Fault(kind, np.random.default_rng(7)))
            changed = np.abs(spoilt.image - sound.image).max(-1) > 10 / 255
            assert 0 < changed.mean() < 0.2


def test_nothing_else_that_is_drawn_has_their_names():
    drawn = {category.name.replace("_", " ") for category in (*TRAIN_CATEGORIES, *TEST_CATEGORIES)}
    drawn |= {*scene_nouns(), *(noun for nouns in PRODUCT_NOUNS.values() for noun in nouns)}
    assert drawn.isdisjoint(category.name.replace("_", " ") for category in UNFAMILIAR)


def test_every_defect_can_be_drawn():
    for category in UNFAMILIAR:
        for kind in category.defects:
            _, mask = draw_sample(category, 3, 0, kind)
            assert 0 < (np.asarray(mask) > 0).mean() < 0.25, (category.name, kind)


def test_the_measure_ranks_pictures_by_the_highest_patch_of_the_smoothed_map(tiny, monkeypatch):
    def maps_of(clip, tokenizer, pixel_values, nouns):
        maps = torch.zeros(len(nouns), 21, 21)
        maps[2:, 9:12, 9:12] = 1.0  # the plan begins with the sound ones
        maps[0, 0, 0] = 1.5  # higher, but alone
        maps[1, 9:12, 9:12] = 2.0
        return maps, None

    monkeypatch.setattr(unfamiliar, "state_maps", maps_of)
    figures = measure_unfamiliar(*tiny, sound=2, defective=7)
    assert figures["image_auroc_by_patches"] == 0.5  # above the first sound picture, below the second
    assert 0 <= figures["pixel_auroc"] <= 1


def test_the_shipped_tower_finds_most_of_what_is_wrong(tiny):
    figures = measure_unfamiliar(*tiny, sound=4, defective=7)
    assert figures["pixel_auroc"] > 0.8
    assert figures["image_auroc_by_patches"] > 0.55
