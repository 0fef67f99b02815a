"""The experts as a PEFT tuner on vision towers of several models."""

import copy

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from moeclip_hf import MoELoraConfig, MoELoraModel


PIXELS = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        )
    ).eval()


def adapt(tower, **fields):
    torch.manual_seed(1)
    model = get_peft_model(tower, MoELoraConfig(**{"r": 4, "layers_to_transform": [1, 3]} | fields)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "moe_lora" in name:
                parameter.normal_(std=0.3)
    return model


def features(model):
    with torch.no_grad():
        return model(pixel_values=PIXELS).last_hidden_state


def test_only_routers_and_output_matrices_are_trained(tower):
    model = adapt(tower)
    assert isinstance(model.base_model, MoELoraModel)
    trained = {
        name.rpartition("moe_lora_experts.default.")[2] for name, p in model.named_parameters() if p.requires_grad
    }
    assert trained == {"router", "lora_B"}
    trainable, _ = model.get_nb_trainable_parameters()
    assert trainable == 2 * (4 * 32 + 4 * 32 * 4)


def test_experts_sit_after_the_named_layers_and_change_what_follows(tower):
    plain = tower(PIXELS, output_hidden_states=True).hidden_states
    model = adapt(tower)
    adapted = model(pixel_values=PIXELS, output_hidden_states=True).hidden_states
    assert len(adapted) == len(plain) == 5
    same = [torch.equal(a, b) for a, b in zip(adapted, plain, strict=True)]
    assert same == [True, True, False, False, False]
    experts = model.base_model.model.encoder.layers[1].moe_lora.active_experts()[0]
    torch.testing.assert_close(adapted[2], experts(plain[2])[0])


def test_disabling_gives_the_plain_tower(tower):
    plain = features(tower)
    model = adapt(tower)
    assert not torch.equal(features(model), plain)
    with model.disable_adapter():
        assert torch.equal(features(model), plain)
    assert not torch.equal(features(model), plain)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saved_adapters_come_back_bit_for_bit(tower, tmp_path, low_cpu_mem_usage):
    model = adapt(copy.deepcopy(tower))
    model.save_pretrained(tmp_path)
    assert type(PeftConfig.from_pretrained(tmp_path)) is MoELoraConfig
    again = PeftModel.from_pretrained(tower, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(features(again), features(model))


def test_several_adapters_add_switch_and_delete(tower, tmp_path):
    other = adapt(copy.deepcopy(tower), seed=5, r=2)
    other.save_pretrained(tmp_path)
    model = adapt(tower)
    first = features(model)
    model.load_adapter(tmp_path, "other")
    model.set_adapter("other")
    assert torch.equal(features(model), features(other))
    model.set_adapter("default")
    assert torch.equal(features(model), first)
    model.delete_adapter("other")
    assert torch.equal(features(model), first)
    assert list(model.peft_config) == ["default"]


def test_unload_returns_the_plain_tower(tower):
    plain = features(tower)
    base = adapt(tower).unload()
    assert base is tower
    assert torch.equal(features(base), plain)
    assert not [name for name, _ in base.named_modules() if "moe_lora" in name]


def test_merging_is_refused(tower):
    with pytest.raises(ValueError, match="cannot be merged"):
        adapt(tower).merge_and_unload()


def test_every_layer_by_default(tower):
    model = adapt(tower, layers_to_transform=None)
    assert all(hasattr(layer, "moe_lora") for layer in tower.encoder.layers)
    assert model.peft_config["default"].layers_to_transform is None


def test_missing_layer_is_named(tower):
    with pytest.raises(ValueError, match=r"`layers_to_transform` holds 4, but the model's layers are 0 to 3"):
        get_peft_model(tower, MoELoraConfig(r=4, layers_to_transform=[1, 4]))


def test_experts_stay_out_of_the_text_tower(tiny_clip):
    inject_adapter_in_model(MoELoraConfig(r=4, layers_to_transform=[0, 1]), tiny_clip)
    adapted = {name.rpartition(".moe_lora.")[0] for name, _ in tiny_clip.named_parameters() if ".moe_lora." in name}
    assert adapted == {"vision_model.encoder.layers.0", "vision_model.encoder.layers.1"}


def test_a_text_tower_alone_is_refused(tiny_clip):
    with pytest.raises(ValueError, match="is a text tower"):
        get_peft_model(tiny_clip.text_model, MoELoraConfig(r=4))


def test_tower_with_projection(tower):
    with_projection = CLIPVisionModelWithProjection(tower.config).eval()
    model = adapt(with_projection)
    assert model(pixel_values=PIXELS).image_embeds.shape == (2, 512)
    assert hasattr(with_projection.vision_model.encoder.layers[3], "moe_lora")


def test_copies_keep_their_own_experts(tower):
    model = adapt(tower)
    twin = copy.deepcopy(model)
    before = features(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if "moe_lora" in name:
                parameter.zero_()
    assert torch.equal(features(model), before)
    assert not torch.equal(features(twin), before)


def test_training_moves_the_experts_alone(tower):
    model = adapt(tower).train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(10):
        loss = (model(pixel_values=PIXELS).last_hidden_state - 1).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(torch.equal(frozen[name], p) for name, p in model.named_parameters() if name in frozen)


def test_half_precision_tower(tower):
    model = adapt(tower).to(torch.bfloat16)
    assert model(pixel_values=PIXELS.bfloat16()).last_hidden_state.dtype == torch.bfloat16
