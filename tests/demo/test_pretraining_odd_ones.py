"""Pictures of equal parts of which one is off, and branches that meet."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from moeclip_hf.demo.pretraining import odd_ones, train
from moeclip_hf.demo.pretraining.batches import make_batch
from moeclip_hf.demo.pretraining.odd_ones import FAULTS, draw_odd_one
from moeclip_hf.demo.pretraining.shards import SamplePool
from moeclip_hf.demo.pretraining.tokenizer import shipped_tokenizer
from moeclip_hf.demo.pretraining.train import pretrain

from .test_pretraining import SMALL, STAGE


def _draw(number: int, difficulty: float, size: int = 96):
    return draw_odd_one(np.random.default_rng((4, number)), size, 8, difficulty)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_odd_ones_depend_on_their_generator_alone_and_differ_from_their_twins_where_they_say(difficulty):
    for number in range(12):
        drawn, again = _draw(number, difficulty), _draw(number, difficulty)
        assert drawn.image.shape == drawn.twin.shape == (96, 96, 3)
        assert drawn.image.dtype == drawn.twin.dtype == np.float32
        assert np.array_equal(drawn.image, again.image)
        assert np.array_equal(drawn.twin, again.twin)
        assert min(drawn.image.min(), drawn.twin.min()) >= 0
        assert max(drawn.image.max(), drawn.twin.max()) <= 1
        assert 20 <= drawn.mask.sum() < 0.4 * drawn.mask.size
        if difficulty == 0:  # evenly lit
            assert np.array_equal(drawn.mask, np.abs(drawn.image - drawn.twin).max(-1) > 0.08)


def test_without_difficulty_every_part_lies_on_the_middle_of_a_patch():
    def middles_within_patches(difficulty: float, number: int) -> set[tuple[float, float]]:
        layout = odd_ones._grid(np.random.default_rng((6, number)), 96, 8, difficulty)
        return {tuple(np.round((middle + 48) % 8, 6)) for middle in layout.middles}

    assert all(middles_within_patches(0.0, number) == {(4.0, 4.0)} for number in range(30))
    assert sum(len(middles_within_patches(1.0, number)) > 1 for number in range(30)) > 25


def test_only_parts_that_the_others_announce_are_missing():
    seen = set()
    for number in range(200):
        layout = odd_ones._grid(np.random.default_rng((7, number)), 168, 8, 0.0)
        columns = len(set(layout.middles[:, 0]))
        rows = len(layout.middles) // columns
        if rows == 1:
            seen.add("row")
            assert layout.missed.tolist() == list(range(1, columns - 1))
        elif (rows, columns) != (2, 2):
            seen.add("grid")
            assert len(layout.missed) == rows * columns
        else:
            assert not len(layout.missed)
    assert seen == {"row", "grid"}


def test_every_fault_is_drawn_and_bodies_leave_out_what_the_benchmark_tests_on(monkeypatch):
    assert sum(FAULTS.values()) == pytest.approx(1)
    seen = set()
    spoil = odd_ones._spoil
    monkeypatch.setattr(
        odd_ones, "_spoil", lambda rng, part, room, fault, d: seen.add(fault) or spoil(rng, part, room, fault, d)
    )
    for number in range(60):
        _draw(number, 1.0)
    assert seen == set(FAULTS)
    rng = np.random.default_rng(1)
    assert {len(odd_ones._body_outline(rng)) for _ in range(200)}.isdisjoint({4, 6})


def test_a_missing_part_leaves_the_ground(monkeypatch):
    monkeypatch.setattr(odd_ones, "FAULTS", {"missing": 1.0})
    for number in range(10):
        drawn = _draw(number, 0.0)
        colours, counts = np.unique(drawn.image[drawn.mask].round(2), axis=0, return_counts=True)
        elsewhere = drawn.twin[~drawn.mask]
        assert np.abs(elsewhere - colours[counts.argmax()]).max(-1).min() < 0.02


PAIRED = replace(STAGE, name="odd", size=64, paired=True, rank_weight=0.5, odd_ones=2, odd_growth=3)


@pytest.mark.parametrize("piece", [None, 6])
def test_odd_ones_join_the_pairs_of_the_pool_and_leave_them_as_they_are(tmp_path, piece):
    tokenizer = shipped_tokenizer()
    stage = replace(PAIRED, piece=piece)
    pool = SamplePool(
        tmp_path, seed=1, size=64, patch_size=8, total=6, first=6, growth=1, shard_size=6, paired=True, mixture="broad"
    )
    try:
        without, batch, again = (
            make_batch(pool, tokenizer, chosen, 1, 7) for chosen in (replace(stage, odd_ones=0), stage, stage)
        )
    finally:
        pool.close()
    assert len(without.pixel_values) == 6
    assert len(batch.pixel_values) == 10
    for name, value in vars(batch).items():
        if value is not None:
            assert torch.equal(value, getattr(again, name)), name
    for old, new in ((0, 0), (3, 5)):  # irregular pictures, then twins
        for name in ("pixel_values", "irregular", "compared", "foreground", "noun_ids"):
            assert torch.equal(getattr(without, name)[old : old + 3], getattr(batch, name)[new : new + 3]), name
    assert (batch.irregular[3:5].amax(1) > 0).all()
    assert torch.equal(batch.irregular[3:5], batch.compared[8:10])
    assert batch.irregular[8:10].amax() == batch.compared[3:5].amax() == 0
    differs = (batch.pixel_values[3:5] - batch.pixel_values[8:10]).abs().amax((1, 2, 3))
    assert (differs > 0.05).all()
    assert (batch.noun_ids[3:5] == -1).all()
    if piece is None:
        assert batch.places is None
    else:
        corner = batch.places[3].reshape(6, 6)
        assert torch.equal(corner, corner[0, 0] + torch.arange(6)[:, None] * 8 + torch.arange(6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paired": False, "rank_weight": 0.0}, r"'odd': `odd_ones` \(2\) come in pairs: set `paired=True`"),
        ({"meet_every": 2}, r"'odd': `meet_every` \(2\) must divide `steps` \(3\)"),
    ],
)
def test_stages_that_cannot_run_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PAIRED, **changes)


def test_turns_give_every_branch_all_its_steps():
    stage = replace(PAIRED, steps=6, meet_every=2, branches=3)
    places = [stage.place(step) for step in range(stage.total_steps)]
    assert places[:8] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (0, 2), (0, 3)]
    assert sorted(places) == [(branch, step) for branch in range(3) for step in range(6)]


def test_branches_that_meet_go_on_from_their_mean(tmp_path):
    options = {"bfloat16": False, "checkpoint_every": 1, "progress": False}
    meeting = replace(PAIRED, steps=4, meet_every=2, branches=2)
    recipe = replace(SMALL, stages=(replace(STAGE, size=64, steps=1), meeting))
    saved = {}
    # after the first turn, within the second, as they meet, within the third, at the end
    for steps in (3, 4, 5, 6, None):
        pretrain(recipe, tmp_path / "pieces", stop_after=steps, **options)
        saved[steps] = torch.load(tmp_path / "pieces" / "checkpoint.pt", weights_only=True)
    pretrain(recipe, tmp_path / "straight", **options)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("pieces", "straight")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 1 + 2 * 4

    for name, value in saved[3]["first"].items():  # branch 1 begins as branch 0 did
        assert torch.equal(saved[3]["model"][name], value), name
    met = saved[5]["model"]
    assert all(torch.equal(value, saved[5]["waiting"][0]["model"][name]) for name, value in met.items())
    assert not torch.equal(met["patch_scale"], saved[5]["first"]["patch_scale"])
    assert saved[None]["waiting"] == []


def test_met_weights_are_the_mean_of_the_branches(tmp_path, monkeypatch):
    found = []
    mean = train._mean
    monkeypatch.setattr(train, "_mean", lambda weights: found.append((weights, mean(weights))) or found[-1][1])
    meeting = replace(PAIRED, steps=2, meet_every=1, branches=3)
    recipe = replace(SMALL, stages=(meeting,))
    pretrain(recipe, tmp_path, bfloat16=False, progress=False)
    assert len(found) == 2  # once they met, once they ended
    for weights, result in found:
        assert len(weights) == 3
        for name, value in result.items():
            if value.is_floating_point():
                expected = torch.stack([each[name] for each in weights]).mean(0)
                torch.testing.assert_close(value, expected, msg=name)
