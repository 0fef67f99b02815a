"""The card says what the files say, and nothing else."""

import dataclasses

import pytest
import yaml
from huggingface_hub import ModelCard

from moeclip_hf import MoECLIPConfig
from moeclip_hf.data.benchmarks import BENCHMARKS
from moeclip_hf.model_card import create_model_card, is_local_path


CLIP = "openai/clip-vit-large-patch14-336"
FIGURES = {"image_auroc": 0.9312, "image_ap": None, "pixel_auroc": 0.87654321, "pixel_ap": 0.25}


def make_record(**values):
    return {
        "preset": "paper",
        "seed": 111,
        "data": "/data/secret/parts",
        "benchmark": None,
        "class_names": ["bolt", "nut"],
        "object_names": ["steel bolt", "nut"],
        "num_images": 40,
        "clip": CLIP,
        "image_size": 518,
        "num_train_epochs": 20,
        "learning_rate": 5e-4,
        "batch_size": 2,
        "recipe": None,
        "versions": {},
        "commit": None,
        "created": "2026-01-01T00:00:00+00:00",
    } | values


def make_results(**meta):
    return {
        "mean": FIGURES,
        "classes": {"gear": FIGURES},
        "meta": {"data": "/tmp/gears", "smoothing": "industrial"} | meta,
    }


def write_card(repo_id="user/name", config=None, **facts) -> ModelCard:
    config = MoECLIPConfig(base_model_name_or_path=CLIP) if config is None else config
    card = create_model_card(config, repo_id, **facts)
    return ModelCard(str(card))  # as it is read back from a README.md


def test_metadata():
    data = write_card(record=make_record()).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-segmentation")
    assert data.base_model == CLIP
    assert "anomaly-detection" in data.tags
    assert data.eval_results is None


def test_a_bare_model_states_nothing_it_does_not_know():
    card = write_card(config=MoECLIPConfig())
    assert "no record of the training" in card.text
    assert "no figure is stated" in card.text
    assert "not recorded on what data the weights were trained" in card.text
    assert card.data.base_model is None
    assert card.data.license == "other"
    assert "%" not in card.text


def test_architecture_is_the_configuration():
    text = " ".join(
        write_card(config=MoECLIPConfig(moe_lora={"num_experts": 3, "num_experts_per_tok": 1})).text.split()
    )
    assert "24 layers of width 1024, patches of 14 pixels) at 518 x 518 pixels" in text
    assert (
        "3 low-rank experts after encoder layers 5, 11, 17 and 23 (counted from 0); a router sends each patch to 1"
        in text
    )
    assert "without experts" in write_card(config=MoECLIPConfig(moe_lora=None)).text


def test_figures_are_those_of_the_files():
    card = write_card(record=make_record(), results={"results/gears.json": make_results(split="test")})
    assert "| gears | 93.1 | - | 87.7 | 25.0 | 1 | industrial | [gears.json](results/gears.json) |" in card.text
    found = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        "image_auroc": 0.9312,
        "pixel_auroc": 0.8765,
        "pixel_ap": 0.25,
    }  # an undefined figure is not stated as 0
    assert {result.dataset_name for result in found.values()} == {"gears"}
    assert {result.dataset_split for result in found.values()} == {"test"}


def test_benchmark_by_its_key_as_data():
    assert "| Head CT |" in write_card(results={"results/a.json": make_results(data="head_ct")}).text


@pytest.mark.parametrize(
    "same", [{"data": "/data/secret/parts/"}, {"benchmark": "visa"}, {"trained_objects": ["steel bolt"]}]
)
def test_results_on_the_training_data_are_no_zero_shot_figures(same):
    record = make_record(benchmark=same.get("benchmark"))
    card = write_card(record=record, results={"results/a.json": make_results(**same)})
    assert "(its training data: not zero-shot)" in card.text
    assert card.data.eval_results is None


def test_objects_of_the_training_among_the_tested_are_named():
    results = make_results()
    results["classes"] |= {"nut": FIGURES}
    card = write_card(record=make_record(), results={"results/a.json": results})
    assert "pictures of nut too" in card.text
    assert card.data.eval_results is None  # they would stand there as zero-shot
    assert "too: for these" not in write_card(record=make_record(), results={"results/a.json": make_results()}).text


def test_training_is_the_record():
    text = write_card(record=make_record(recipe="visa.json", benchmark="visa", global_step=400), has_recipe=True).text
    for line in (
        "| data | VisA |",
        "| images | 40 |",
        "| objects | steel bolt and nut |",
        "| seed | 111 |",
        "| steps | 400 |",
    ):
        assert line in text
    assert "`training.json`" in text
    assert "`recipe.json`" in text
    assert "`recipe.json`" not in write_card(record=make_record()).text


def test_no_path_of_this_machine():
    card = str(write_card(record=make_record(), results={"results/a.json": make_results()}))
    assert "/data" not in card
    assert "/tmp" not in card
    local = MoECLIPConfig(base_model_name_or_path="/data/clip", adapters_only=True)
    assert "/data" not in str(write_card(config=local))


def test_non_commercial_data_make_non_commercial_weights():
    card = write_card(record=make_record(benchmark="mvtec"))
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert "non-commercial use only: so are these weights" in card.text


@pytest.mark.parametrize("key", BENCHMARKS)
def test_licence_follows_the_benchmark(key):
    benchmark = BENCHMARKS[key]
    card = write_card(record=make_record(benchmark=key))
    assert benchmark.licence in card.text
    assert benchmark.title in card.text
    is_restricted = "so are these weights" in card.text
    assert is_restricted == bool(benchmark.non_commercial)
    assert ("commercial use is not known" in card.text) == (benchmark.non_commercial is None)
    if benchmark.non_commercial is not True:
        assert card.data.license == "other"


def test_own_data_have_unknown_terms():
    card = write_card(record=make_record())
    assert "trained on parts; the terms of these data are not recorded" in card.text
    assert card.data.license == "other"


def test_adapters_name_their_clip():
    config = MoECLIPConfig(base_model_name_or_path=CLIP, base_model_revision="abc123", adapters_only=True)
    assert f"fetches the CLIP `{CLIP}` at revision `abc123`" in write_card(config=config).text
    assert "The weights are whole" in write_card().text


def test_use_and_limits():
    text = write_card("user/name").text
    assert 'AutoModel.from_pretrained("user/name", trust_remote_code=True)' in text
    assert "Not for diagnosis" in text


def test_example():
    card = write_card(example=("example.png", "leaf: the picture"))
    assert "![leaf: the picture](example.png)" in card.text
    assert "](example.png)" not in write_card().text


def test_names_from_files_are_no_markup():
    record = make_record(object_names=["a|b\n# <b>`x`</b>"], data="parts](http://bad)")
    text = write_card(record=record).text
    assert "\n# <b>" not in text
    assert r"a\|b \# \<b\>" in text
    assert "parts](" not in text


def test_metadata_are_yaml_whatever_the_names():
    results = make_results(data="a: [b]\n---\nlicense: mit")
    front = str(write_card(results={"results/x.json": results})).split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(front)["license"] == "other"


def test_length():
    """A card is read: short but for the tables that the files fill."""
    assert len(str(write_card(record=make_record(), results={"results/a.json": make_results()})).splitlines()) < 120


@pytest.mark.parametrize(
    ("name", "is_local"),
    [("openai/clip", False), ("/a/b", True), ("../tiny_clip", True), ("./x", True), ("~/x", True), ("a/b/c", True)],
)
def test_local_paths(name, is_local):
    assert is_local_path(name) == is_local


def test_benchmarks_have_what_the_card_needs():
    names = {field.name for field in dataclasses.fields(next(iter(BENCHMARKS.values())))}
    assert {"title", "home_page", "licence", "non_commercial"} <= names
