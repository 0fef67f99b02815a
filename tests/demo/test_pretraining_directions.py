"""One direction of damage for every noun: the pairs aimed at, the text tower that learns them, the stage that begins so."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPModel

from moeclip_hf.demo import DEMO_CLIP
from moeclip_hf.demo.pretraining import train
from moeclip_hf.demo.pretraining.directions import known_nouns, mean_direction, teach_one_direction, with_direction
from moeclip_hf.demo.pretraining.objective import RegionTextObjective
from moeclip_hf.demo.pretraining.stages import Recipe
from moeclip_hf.demo.pretraining.texts import HELD_OUT_WORDS
from moeclip_hf.demo.pretraining.tokenizer import shipped_tokenizer
from moeclip_hf.demo.pretraining.train import build_clip, pretrain

from .test_pretraining import SMALL, STAGE


TAUGHT = replace(STAGE, name="second", steps=2, one_direction=True)
RECIPE = replace(SMALL, stages=(replace(STAGE, steps=1), TAUGHT, replace(STAGE, name="third", steps=1)))
UNKNOWN_NOUNS = ("wurblefink", "remote control", "magnetic tile", "grommet of brass", "kettle")


@pytest.fixture(scope="module")
def tokenizer():
    return shipped_tokenizer()


def _fresh(tokenizer) -> RegionTextObjective:
    return RegionTextObjective(build_clip(RECIPE, len(tokenizer), 32), RECIPE.levels)


@torch.no_grad()
def _pairs(model, tokenizer) -> torch.Tensor:
    texts = [form.format(noun) for form in ("a photo of a {}.", "a broken {}.") for noun in UNKNOWN_NOUNS]
    return model.encode_texts(tokenizer(texts, padding=True, return_tensors="pt").input_ids)


def _spread(pairs: torch.Tensor, direction: torch.Tensor) -> float:
    """How far the pairs' differences are from the direction, as a share of its length."""
    normal, abnormal = pairs.chunk(2)
    return float((abnormal - normal - direction).norm(dim=-1).mean() / direction.norm())


def test_pairs_get_the_direction_and_keep_what_is_orthogonal_to_it():
    generator = torch.Generator().manual_seed(0)
    embeds = F.normalize(torch.randn(6, 8, generator=generator), dim=-1)
    direction = 0.3 * torch.randn(8, generator=generator)
    found = with_direction(embeds, direction)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(6))
    for number in range(3):
        normal, abnormal = found[number], found[number + 3]
        torch.testing.assert_close(abnormal - normal, direction)
        middle = (embeds[number] + embeds[number + 3]) / 2
        kept = middle - (middle @ direction) / (direction @ direction) * direction
        torch.testing.assert_close(F.cosine_similarity(kept, normal + abnormal, dim=0), torch.tensor(1.0))


def test_the_text_tower_learns_one_direction_for_nouns_it_has_not_met(tokenizer):
    model = RegionTextObjective(CLIPModel.from_pretrained(DEMO_CLIP, dtype=torch.float32), Recipe(()).levels)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the shipped tower has one direction; with disturbed layers each noun gets its own again
        for weights in model.clip.text_model.encoder.parameters():
            if weights.ndim == 2:
                weights.add_(0.6 * weights.std() * torch.randn(weights.shape, generator=generator))
    direction = mean_direction(model, tokenizer)
    before = _spread(_pairs(model, tokenizer), direction)
    teach_one_direction(model, tokenizer, steps=60, progress=False)
    assert _spread(_pairs(model, tokenizer), direction) < 0.6 * before


def test_teaching_is_repeatable_and_changes_the_text_tower_alone(tokenizer):
    model, again = _fresh(tokenizer), _fresh(tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teach_one_direction(model, tokenizer, steps=3, progress=False)
    teach_one_direction(again, tokenizer, steps=3, progress=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, before[name]) == ("text" not in name), name


def test_no_known_noun_has_a_word_of_the_test_categories():
    nouns = known_nouns()
    assert {"brushed steel", "cog", "control panel"} <= set(nouns)
    assert HELD_OUT_WORDS.isdisjoint(word for noun in nouns for word in noun.split())


def test_from_a_stage_of_one_direction_on_the_text_tower_stays_as_it_then_is(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(train, "teach_one_direction", partial(teach_one_direction, steps=3))
    options = {"bfloat16": False, "checkpoint_every": 1, "progress": False}
    pretrain(RECIPE, tmp_path / "before", stop_after=1, **options)
    taught = _fresh(tokenizer)
    taught.load_state_dict(torch.load(tmp_path / "before" / "checkpoint.pt", weights_only=True)["average"])
    teach_one_direction(taught, tokenizer, steps=3, progress=False)
    for name, stops in (("straight", (None,)), ("pieces", (1, 2, 3, None))):
        for stop in stops:
            pretrain(RECIPE, tmp_path / name, stop_after=stop, **options)
    straight, pieces = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["average"] for name in ("straight", "pieces")
    )
    for name, value in taught.state_dict().items():
        assert torch.equal(straight[name], pieces[name]), name
        if "text" in name:
            torch.testing.assert_close(straight[name], value, msg=name)
    assert not torch.equal(straight["clip.visual_projection.weight"], taught.clip.visual_projection.weight)


def test_a_first_stage_of_one_direction_is_refused():
    with pytest.raises(ValueError, match=r"'first' is the first and has `one_direction=True`"):
        Recipe((replace(STAGE, one_direction=True),))
