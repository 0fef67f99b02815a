"""Several whole adapters on one CLIP in memory: loaded, switched, trained, saved and deleted by name."""

import copy
import inspect
import json

import pytest
import torch
from conftest import build_clip, randomize_adapters
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.integrations import PeftAdapterMixin

from moeclip_hf import MoECLIPForAnomalyDetection, MoELoraConfig
from moeclip_hf.adapters_moeclip import MoECLIPAdapterMixin
from moeclip_hf.backbone_moeclip import is_adapter_key


# Adapters that differ in everything but the CLIP.
FIELDS = {
    "industrial": {"moe_lora": {"r": 4}},
    "medical": {
        "moe_lora": {"r": 2, "num_experts": 3, "layers_to_transform": [0, 2], "orthogonal_split": False},
        "feature_layers": (1, 3),
        "patch_average_kernel_sizes": (1, 3),
        "share_patch_projections": False,
        "patch_projection_act": "leaky_relu",
        "use_image_head": False,
        "projection_dim": 20,
        "router_aux_loss_coef": 0.5,
    },
    "without_experts": {"moe_lora": None, "feature_layers": (0, 3)},
}


@pytest.fixture
def folders(tiny_clip_folder, tmp_path):
    """A folder each: `industrial` and `medical` as adapters, `without_experts` with its CLIP."""
    for seed, (name, fields) in enumerate(FIELDS.items()):
        torch.manual_seed(seed)
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, **fields)
        randomize_adapters(model, seed=seed)
        model.save_pretrained(tmp_path / name, adapters_only=name != "without_experts")
    return tmp_path


@pytest.fixture
def model(folders):
    """The industrial model under its first name, "default", with the others beside it."""
    model = MoECLIPForAnomalyDetection.from_pretrained(folders / "industrial")
    for name in ("medical", "without_experts"):
        model.load_adapter(folders / name, name)
    return model


def run(model, **kwargs):
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 56, 56)
    masks[1, :20, :30] = 1
    with torch.no_grad():
        return model(
            torch.randn(2, 3, 56, 56, generator=generator),
            prompt_embeds=torch.randn(1, 4, 16, generator=generator),
            prompt_state=torch.tensor([0, 0, 1, 1]),
            labels=torch.tensor([0, 1]),
            mask_labels=masks,
            output_router_logits=True,
            output_hidden_states=True,
            **kwargs,
        )


def assert_same(first, second):
    a, b = run(first), run(second)
    assert a.keys() == b.keys()
    for name in a:
        first, second = (one[name] if isinstance(one[name], tuple) else (one[name],) for one in (a, b))
        assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True)), name


def alone(folder):
    return MoECLIPForAnomalyDetection.from_pretrained(folder)


@pytest.mark.parametrize("run_before", [False, True])
def test_each_computes_what_it_computes_alone(folders, run_before):
    model = alone(folders / "industrial")
    if run_before:  # transformers then records hidden states and router logits through hooks of before the load
        run(model)
    for name in ("medical", "without_experts"):
        model.load_adapter(folders / name, name)
    assert model.active_adapter == "default"
    order = ("default", "medical", "without_experts", "medical", "default")
    for name in order:
        model.set_adapter(name)
        assert model.active_adapter == name
        assert model.active_adapters() == [name]
        assert_same(model, alone(folders / ("industrial" if name == "default" else name)))


def test_there_is_one_clip(model, folders):
    backbone = {name: p.data_ptr() for name, p in model.named_parameters() if not is_adapter_key(name)}
    assert backbone.keys() == {
        name for name, _ in alone(folders / "medical").named_parameters() if not is_adapter_key(name)
    }
    for name in model.adapter_names:
        model.set_adapter(name)
        assert backbone == {n: p.data_ptr() for n, p in model.named_parameters() if not is_adapter_key(n)}
    sizes = [sum(t.numel() for t in model.get_adapter_state_dict(name).values()) for name in model.adapter_names]
    assert sum(t.numel() for n, t in model.state_dict().items() if is_adapter_key(n)) == sum(sizes)
    assert {p.device.type for p in model.parameters()} == {"cpu"}  # nothing is left on the meta device


def test_the_configuration_is_the_active_adapters(model, folders):
    for name, folder in (("medical", "medical"), ("default", "industrial")):
        model.set_adapter(name)
        expected = alone(folders / folder).config
        for field in ("moe_lora", "feature_layers", "projection_dim", "use_image_head", "adapters_only"):
            assert getattr(model.config, field) == getattr(expected, field), field
        assert model.config.name_or_path == str(folders / folder)


def test_frozen_text_features_serve_every_adapter(model):
    ids = torch.randint(1, 100, (1, 3, 9), generator=torch.Generator().manual_seed(0))
    ids[..., -1] = model.config.text_config.eos_token_id
    state = torch.tensor([0, 1, 1])
    prompt_embeds = model.get_prompt_embeds(ids)
    text_embeds = model.get_text_embeds(prompt_embeds, state)
    model.set_adapter("without_experts")
    assert torch.equal(model.get_prompt_embeds(ids), prompt_embeds)
    assert not torch.equal(model.get_text_embeds(prompt_embeds, state), text_embeds)


def test_training_moves_the_active_adapter_alone(model):
    model.set_adapter("medical")
    model.train()
    before = {name: model.get_adapter_state_dict(name) for name in model.adapter_names}
    before = {adapter: {name: t.clone() for name, t in tensors.items()} for adapter, tensors in before.items()}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) == len(before["medical"])  # A is trained here
    assert not any("inactive_heads" in name or ".default." in name for name in trainable)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    pixels = torch.randn(1, 3, 56, 56)
    model(
        pixels, prompt_embeds=torch.randn(1, 4, 16), prompt_state=torch.tensor([0, 0, 1, 1]), labels=torch.ones(1)
    ).loss.backward()
    optimizer.step()
    for adapter, tensors in before.items():
        now = model.get_adapter_state_dict(adapter)
        moved = {name for name, tensor in tensors.items() if not torch.equal(now[name], tensor)}
        assert bool(moved) == (adapter == "medical"), adapter


def test_loaded_modules_are_in_the_models_mode(folders):
    model = alone(folders / "industrial").train()
    model.load_adapter(folders / "medical", "medical")
    assert all(module.training for module in model.modules())
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["medical", "default", "without_experts"])
def test_saving_one_of_them(model, folders, tmp_path, name):
    source = folders / ("industrial" if name == "default" else name)
    model.set_adapter(name)
    model.save_pretrained(tmp_path / "again")
    saved, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", source))
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], expected[key]) for key in expected)
    written, original = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "again", source))
    for config in (written, original):
        for tower in ("vision_config", "text_config"):
            config[tower].pop("dtype", None)
    assert written == original
    assert_same(alone(tmp_path / "again"), model)


def test_state_dict_of_one_has_the_names_it_has_alone(model, folders):
    for name, folder in (("default", "industrial"), ("medical", "medical")):
        expected = load_file(folders / folder / "model.safetensors")
        tensors = model.get_adapter_state_dict(name)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert model.get_adapter_state_dict().keys() == model.get_adapter_state_dict("default").keys()


def test_deleting(model, folders):
    before = alone(folders / "industrial").state_dict()
    model.delete_adapter("medical")
    assert model.adapter_names == ["default", "without_experts"]
    with pytest.raises(ValueError, match=r"`adapter_name` \('medical'\) must be one of 'default', 'without_experts'"):
        model.set_adapter("medical")
    with pytest.raises(ValueError, match="is the active adapter: set another one first"):
        model.delete_adapter("default")
    model.delete_adapter("without_experts")
    assert model.state_dict().keys() == before.keys()
    assert_same(model, alone(folders / "industrial"))
    model.load_adapter(folders / "medical", "medical")
    model.set_adapter("medical")
    model.delete_adapter("default")
    assert model.adapter_names == ["medical"]
    assert_same(model, alone(folders / "medical"))


def test_copies_switch_on_their_own(model, folders):
    twin = copy.deepcopy(model)
    twin.set_adapter("medical")
    assert model.active_adapter == "default"
    assert_same(model, alone(folders / "industrial"))
    assert_same(twin, alone(folders / "medical"))


def test_adapters_take_the_models_precision(folders):
    model = MoECLIPForAnomalyDetection.from_pretrained(folders / "industrial", dtype=torch.bfloat16)
    model.load_adapter(folders / "medical", "medical")
    model.load_adapter(folders / "without_experts", "plain")  # whose CLIP is stored in float32
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    model.set_adapter("medical")
    assert_same(model, MoECLIPForAnomalyDetection.from_pretrained(folders / "medical", dtype=torch.bfloat16))
    model.float()
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_experts_are_switched_off_and_on(model, tiny_clip):
    adapted, pixels = run(model), torch.zeros(1, 3, 56, 56)
    model.disable_adapters()
    plain = tiny_clip.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(model.vision_model(pixels).last_hidden_state, plain)
    assert run(model).etf_loss is None
    model.enable_adapters()
    assert torch.equal(run(model).anomaly_logits, adapted.anomaly_logits)


# What is refused


@pytest.mark.parametrize("name", ["", "a.b", None, ["a"]])
def test_name_of_an_adapter(model, folders, name):
    with pytest.raises(ValueError, match="must be a name without a dot"):
        model.load_adapter(folders / "medical", name)


def test_a_taken_name(model, folders):
    with pytest.raises(ValueError, match=r"`adapter_name` \('medical'\) is taken"):
        model.load_adapter(folders / "medical", "medical")


def test_several_at_once(model):
    with pytest.raises(ValueError, match="must be one of 'default', 'medical', 'without_experts'"):
        model.set_adapter(["default", "medical"])


def test_another_input_size(model, tiny_clip_folder, tmp_path):
    MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=70).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"has `vision_config.image_size` 70, the model 56. Adapters share one CLIP"):
        model.load_adapter(tmp_path / "other", "other")


def test_another_clip_under_a_full_model(model, tmp_path):
    MoECLIPForAnomalyDetection.from_clip(build_clip(seed=3), image_size=56).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"has another '\w+_model.* than the model"):
        model.load_adapter(tmp_path / "other", "other")


def test_another_clip_by_name_or_revision(model, folders, tmp_path):
    file = folders / "medical" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"base_model_name_or_path": "someone/clip"}))
    with pytest.raises(ValueError, match="was trained on `base_model_name_or_path` 'someone/clip', the model is on"):
        model.load_adapter(folders / "medical", "other")
    model.config.base_model_revision = "first"
    file.write_text(json.dumps(config | {"base_model_revision": "second"}))
    with pytest.raises(ValueError, match="was trained on `base_model_revision` 'second', the model is on 'first'"):
        model.load_adapter(folders / "medical", "other")
    file.write_text(json.dumps(config | {"base_model_name_or_path": "../tiny_clip"}))  # the same place
    model.load_adapter(folders / "medical", "other")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("text_adapter.weight"), "lacks 'text_adapter.weight'"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "has the unknown 'extra'"),
        (lambda tensors: tensors.update({"text_adapter.weight": torch.ones(2, 2)}), "another shape of 'text_adapter"),
    ],
)
def test_damaged_weights_leave_the_model_as_it_was(model, folders, edit, message):
    file = folders / "medical" / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    names = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        model.load_adapter(folders / "medical", "other")
    assert list(model.state_dict()) == names
    assert model.adapter_names == ["default", "medical", "without_experts"]


@pytest.mark.parametrize("adapters_only", [True, False])
def test_weights_in_shards(folders, tmp_path, adapters_only):
    source = MoECLIPForAnomalyDetection.from_pretrained(folders / "medical")
    source.save_pretrained(tmp_path / "shards", adapters_only=adapters_only, max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    model = MoECLIPForAnomalyDetection.from_pretrained(folders / "industrial")
    model.load_adapter(tmp_path / "shards", "medical")
    model.set_adapter("medical")
    assert_same(model, source)
    assert_same(MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "shards"), source)


def test_a_missing_shard(model, folders, tmp_path):
    source = MoECLIPForAnomalyDetection.from_pretrained(folders / "medical")
    source.save_pretrained(tmp_path / "shards", adapters_only=True, max_shard_size="4KB")
    sorted((tmp_path / "shards").glob("*.safetensors"))[-1].unlink()
    with pytest.raises((OSError, ValueError), match="shards"):
        model.load_adapter(tmp_path / "shards", "again")
    assert "again" not in model.adapter_names


def test_a_truncated_file(model, folders):
    file = folders / "medical" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        model.load_adapter(folders / "medical", "other")


def test_other_peft_adapters_are_not_for_these_methods(model, folders):
    with pytest.raises(ValueError, match="`add_adapter` cannot add LoraConfig"):
        model.add_adapter(LoraConfig(), "lora")
    with pytest.raises(ValueError, match="`add_adapter` cannot add MoELoraConfig"):
        model.add_adapter(MoELoraConfig(), "fresh")
    with pytest.raises(ValueError, match="got 'peft_config': it loads whole MoECLIP adapters"):
        model.load_adapter(folders / "medical", "other", peft_config={})
    with pytest.raises(ValueError, match="`load_adapter` and `set_adapter` need none"):
        model.enable_peft_hotswap(target_rank=8)


def test_no_method_of_transformers_mixin_is_inherited_by_accident():
    theirs = {name for name, _ in inspect.getmembers(PeftAdapterMixin, inspect.isfunction) if not name.startswith("_")}
    assert {"load_adapter", "set_adapter", "delete_adapter"} <= theirs
    for name in theirs:
        assert name in vars(MoECLIPAdapterMixin), f"transformers' {name} would work on a part of the adapter only"
        assert getattr(MoECLIPForAnomalyDetection, name) is not getattr(PreTrainedModel, name)
