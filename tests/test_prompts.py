"""The prompts are part of the recipe: trained weights depend on every word."""

import pytest

from moeclip_hf.prompts_moeclip import build_prompts


METAL_NUT_PROMPTS = [
    ("metal nut.", 0),
    ("a photo of metal nut.", 0),
    ("a metal nut.", 0),
    ("a photo of a metal nut.", 0),
    ("the metal nut.", 0),
    ("a photo of the metal nut.", 0),
    ("a damaged metal nut.", 1),
    ("a photo of a damaged metal nut.", 1),
    ("a broken metal nut.", 1),
    ("a photo of a broken metal nut.", 1),
    ("a metal nut with flaw.", 1),
    ("a photo of a metal nut with flaw.", 1),
    ("a metal nut with defect.", 1),
    ("a photo of a metal nut with defect.", 1),
    ("a metal nut with damage.", 1),
    ("a photo of a metal nut with damage.", 1),
]


def test_prompts_word_by_word():
    prompts, states = build_prompts("metal nut")
    assert list(zip(prompts, states, strict=True)) == METAL_NUT_PROMPTS


def test_blanks_around_the_name_are_dropped():
    assert build_prompts(" metal nut\n") == build_prompts("metal nut")


@pytest.mark.parametrize("name", ["{}", "{0}", "50 % {x} nut"])
def test_names_with_braces_are_taken_literally(name):
    assert build_prompts(name)[0][3] == f"a photo of a {name}."


@pytest.mark.parametrize("name", ["", "  ", "\t"])
def test_empty_name_is_an_error(name):
    with pytest.raises(ValueError, match="`object_names` holds an empty name .* write 'object'"):
        build_prompts(name)


@pytest.mark.parametrize("name", [None, 3, b"nut"])
def test_name_that_is_no_string_is_an_error(name):
    with pytest.raises(ValueError, match="`object_names` must be strings"):
        build_prompts(name)
