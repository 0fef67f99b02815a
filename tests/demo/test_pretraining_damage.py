"""Damage in the pretraining's pictures: where it lies, how often it is drawn, and whose code draws it."""

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from moeclip_hf.demo.pretraining import irregularities
from moeclip_hf.demo.pretraining.damage import DAMAGE
from moeclip_hf.demo.pretraining.fields import Canvas
from moeclip_hf.demo.pretraining.irregularities import add_irregularity


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_stays_on_the_body_and_where_it_says(damage):
    canvas = Canvas(90, 80)
    u, v = canvas.coordinates
    body = (np.hypot(u, v) < 0.4).astype(np.float32)
    image = np.random.default_rng(1).uniform(0.3, 0.7, (90, 80, 3)).astype(np.float32)
    shown = 0
    for seed in range(12):
        changed, reach = damage(np.random.default_rng(seed), canvas, image, np.array([0.1, 0.05]), body)
        again, _ = damage(np.random.default_rng(seed), canvas, image, np.array([0.1, 0.05]), body)
        assert np.array_equal(changed, again)
        assert changed.shape == image.shape
        assert np.isfinite(changed).all()
        difference = np.abs(changed - image).max(-1)
        assert difference[body == 0].max() < 1e-6
        assert difference[reach < 0.004].max(initial=0) < 0.06
        shown += (difference > 0.1).mean() > 0.001
    assert shown > 4


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)])
def test_damage_is_drawn_as_often_as_asked(monkeypatch, share, least, most):
    canvas, image = Canvas(24, 24), np.full((24, 24, 3), 0.5, np.float32)
    drawn = []

    def painted(rng, canvas, image, place, body):
        drawn.append(place)
        return np.ones_like(image), (
            np.hypot(*(axis - at for axis, at in zip(canvas.coordinates, place, strict=True))) < 0.1
        )

    monkeypatch.setattr(irregularities, "DAMAGE", {painted: 1.0})
    for seed in range(200):
        rng = np.random.default_rng(seed)
        add_irregularity(rng, canvas, image, np.ones((24, 24), bool), damage_share=share, tries=1)
    assert least <= len(drawn) <= most


def test_training_pictures_are_drawn_without_the_surface_defects_of_the_benchmark():
    folder = Path(str(files("moeclip_hf"))) / "demo" / "pretraining"
    users = {
        path.stem for path in folder.glob("*.py") if re.search("surface_defects|benchmark.drawing", path.read_text())
    }
    assert users == {"unfamiliar"}
