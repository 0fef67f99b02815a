"""Adapters-only repositories and the CLIP they name: which loading argument and which revision belongs to which."""

import shutil

import pytest
import torch
from conftest import build_clip, randomize_adapters
from transformers import AutoModel, CLIPModel, PreTrainedModel

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor, backbone_moeclip


OLD_CLIP, NEW_CLIP, OLD_ADAPTERS, NEW_ADAPTERS = (letter * 40 for letter in "abcd")


def put_into_cache(cache, repository, commit, folder, ref=None):
    """Places a folder where huggingface_hub keeps what it has downloaded of a repository."""
    place = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / commit)
    if ref is not None:
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / ref).write_text(commit)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the Hub with two commits of a CLIP, the branch `main` on the second."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    for seed, commit, ref in ((0, OLD_CLIP, None), (1, NEW_CLIP, "main")):
        build_clip(seed=seed).save_pretrained(tmp_path / commit)
        put_into_cache(tmp_path / "cache", "someone/clip", commit, tmp_path / commit, ref)
    return tmp_path / "cache"


@pytest.fixture
def adapters(cache, tmp_path):
    """A model on the first commit of the CLIP; its adapters are in the cache as revision `v1`, others are at `main`."""
    model = MoECLIPForAnomalyDetection.from_clip(build_clip(seed=0), image_size=70, moe_lora={"r": 4})
    model.config.base_model_name_or_path, model.config.base_model_revision = "someone/clip", OLD_CLIP
    for seed, commit, ref in ((1, NEW_ADAPTERS, "main"), (2, OLD_ADAPTERS, "v1")):
        randomize_adapters(model, seed=seed)
        model.save_pretrained(tmp_path / commit, adapters_only=True)
        put_into_cache(cache, "someone/adapters", commit, tmp_path / commit, ref)
    return model


def outputs(model):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, 70, 70, generator=generator)
    with torch.no_grad():
        return model(
            pixels, prompt_embeds=torch.randn(1, 4, 16, generator=generator), prompt_state=torch.arange(4) % 2
        )


@pytest.mark.parametrize("auto", [MoECLIPForAnomalyDetection, AutoModel])
def test_revision_is_the_adapters_and_the_base_has_its_own(adapters, cache, auto):
    model = auto.from_pretrained("someone/adapters", revision="v1", cache_dir=cache, local_files_only=True)
    assert torch.equal(outputs(model).anomaly_logits, outputs(adapters).anomaly_logits)
    assert torch.equal(outputs(model).text_embeds, outputs(adapters).text_embeds)
    assert model.config.base_model_revision == OLD_CLIP
    assert model.name_or_path == model.config.name_or_path == "someone/adapters"
    latest = auto.from_pretrained("someone/adapters", cache_dir=cache)
    assert not torch.equal(outputs(latest).anomaly_logits, outputs(adapters).anomaly_logits)


def test_cache_dir_is_needed_by_both(adapters, cache):
    shutil.rmtree(cache / "models--someone--clip")
    with pytest.raises(OSError, match="someone/clip"):
        MoECLIPForAnomalyDetection.from_pretrained("someone/adapters", revision="v1", cache_dir=cache)


def test_an_adapter_is_hot_swapped_by_id_and_revision(adapters, cache):
    model = AutoModel.from_pretrained("someone/adapters", cache_dir=cache)
    model.load_adapter("someone/adapters", "first", revision="v1", cache_dir=cache, local_files_only=True)
    model.set_adapter("first")
    assert torch.equal(outputs(model).anomaly_logits, outputs(adapters).anomaly_logits)
    assert model.config.name_or_path == "someone/adapters"


def test_arguments_reach_the_load_they_belong_to(tiny_clip_folder, tmp_path, monkeypatch):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
    model.config.base_model_revision = "theirs"
    model.save_pretrained(tmp_path / "repo" / "nested", adapters_only=True)
    file = tmp_path / "repo" / "nested" / "model.safetensors"
    file.rename(file.with_name("model.fp16.safetensors"))

    seen = {}
    load_clip, find_file = CLIPModel.from_pretrained, backbone_moeclip.cached_file
    monkeypatch.setattr(CLIPModel, "from_pretrained", lambda name, **kw: seen.update(base=kw) or load_clip(name, **kw))
    monkeypatch.setattr(
        backbone_moeclip, "cached_file", lambda *args, **kw: seen.update(adapters=kw) or find_file(*args, **kw)
    )
    load_whole = PreTrainedModel.from_pretrained.__func__
    monkeypatch.setattr(
        PreTrainedModel,
        "from_pretrained",
        classmethod(lambda cls, *args, **kw: seen.update(whole=kw) or load_whole(cls, *args, **kw)),
    )
    both = {"token": "secret", "cache_dir": str(tmp_path), "local_files_only": True, "force_download": True}
    again = MoECLIPForAnomalyDetection.from_pretrained(
        tmp_path / "repo",
        revision="ours",
        subfolder="nested",
        variant="fp16",
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        attn_implementation="eager",
        **both,
    )
    assert seen["adapters"] == both | {"revision": "ours", "subfolder": "nested"}
    assert {name: seen["base"].get(name) for name in both} == both
    assert seen["base"]["revision"] == "theirs"
    assert not {"subfolder", "variant"} & seen["base"].keys()
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    assert {parameter.device.type for parameter in again.parameters()} == {"cpu"}
    assert seen["whole"]["device_map"] == {"": "cpu"}
    assert again.text_model.config._attn_implementation == "eager"


def test_a_fresh_model_records_the_commit_of_its_clip(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    latest = MoECLIPForAnomalyDetection.from_clip("someone/clip", image_size=70, moe_lora={"r": 4})
    assert latest.config.base_model_name_or_path == "someone/clip"
    assert latest.config.base_model_revision == NEW_CLIP
    pinned = MoECLIPForAnomalyDetection.from_clip(
        "someone/clip", image_size=70, moe_lora={"r": 4}, base_model_revision=OLD_CLIP
    )
    assert pinned.config.base_model_revision == OLD_CLIP
    weight = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(pinned.state_dict()[weight], build_clip(seed=0).state_dict()[weight])
    assert torch.equal(latest.state_dict()[weight], build_clip(seed=1).state_dict()[weight])


def test_the_tokenizer_is_of_the_clips_revision(cache, monkeypatch, tiny_tokenizer):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for commit, word in ((OLD_CLIP, "old"), (NEW_CLIP, "new")):
        tiny_tokenizer.add_tokens([word])
        tiny_tokenizer.save_pretrained(cache / "models--someone--clip" / "snapshots" / commit)
    model = MoECLIPForAnomalyDetection.from_clip("someone/clip", image_size=70, base_model_revision=OLD_CLIP)
    assert "new" not in MoECLIPProcessor.from_clip("someone/clip", model.config).tokenizer.get_vocab()
    model.config.base_model_name_or_path = "someone/another"  # whose commits are not those of the CLIP asked for
    assert "new" in MoECLIPProcessor.from_clip("someone/clip", model.config).tokenizer.get_vocab()


def test_a_folder_has_no_commit(tiny_clip_folder):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
    assert model.config.base_model_revision is None
