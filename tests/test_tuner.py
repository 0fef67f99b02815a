"""The experts as a PEFT tuner: on CLIP's vision towers with everything that PEFT and transformers offer, and on others."""

import copy

import pytest
import torch
from conftest import build_clip
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from torch import nn
from transformers import (
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from moeclip_hf import MoELoraConfig, MoELoraModel


PIXELS = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
CLIP_CONFIG = build_clip().config.vision_config
CLIP_TOWERS = {
    "CLIPVisionModel": lambda: CLIPVisionModel(copy.deepcopy(CLIP_CONFIG)),
    "CLIPVisionModelWithProjection": lambda: CLIPVisionModelWithProjection(copy.deepcopy(CLIP_CONFIG)),
    "CLIPModel": build_clip,
}
TOWERS = CLIP_TOWERS | {
    "SiglipVisionModel": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, intermediate_size=64)),
    "Dinov2Model": lambda: Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=2)),
}


def build(name):
    torch.manual_seed(0)
    return TOWERS[name]().eval()


@pytest.fixture(params=TOWERS)
def tower(request):
    return build(request.param)


@pytest.fixture(params=CLIP_TOWERS)
def clip_tower(request):
    return build(request.param)


def randomize(model, seed=1, adapter_name="default"):
    """Gives an adapter's experts values, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if f"moe_lora_experts.{adapter_name}." in name:
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def adapt(tower, **fields):
    return randomize(get_peft_model(tower, MoELoraConfig(**{"r": 4, "layers_to_transform": [1, 3]} | fields)))


def run(model, **kwargs):
    """The vision tower's output; a whole CLIP also gets a text."""
    inputs = {"pixel_values": PIXELS.to(next(model.parameters()).dtype)}
    if any("text_model" in name for name, _ in model.named_children()) or hasattr(model, "text_model"):
        inputs["input_ids"] = torch.tensor([[188, 5, 9, 189]])
    outputs = model(**inputs, **kwargs)
    return getattr(outputs, "vision_model_output", outputs)


def features(model):
    with torch.no_grad():
        return run(model).last_hidden_state


def experts_of(model, adapter_name="default"):
    marker = f".moe_lora_experts.{adapter_name}."
    return {name: tensor for name, tensor in model.state_dict().items() if marker in name}


# On every tower


def test_only_routers_and_output_matrices_are_trained(tower):
    model = adapt(tower)
    assert isinstance(model.base_model, MoELoraModel)
    trained = {
        name.rpartition("moe_lora_experts.default.")[2] for name, p in model.named_parameters() if p.requires_grad
    }
    assert trained == {"router", "lora_B"}
    trainable, _ = model.get_nb_trainable_parameters()
    assert trainable == 2 * (4 * 32 + 4 * 32 * 4)


@pytest.mark.parametrize("run_before", [False, True])
def test_hidden_states_are_the_adapted_ones(tower, run_before):
    untouched = copy.deepcopy(tower)
    plain = run(untouched, output_hidden_states=True).hidden_states
    if run_before:  # transformers then records through hooks that are older than the experts
        run(tower, output_hidden_states=True)
    model = adapt(tower)
    adapted = run(model, output_hidden_states=True).hidden_states
    assert len(adapted) == len(plain) == 5
    same = [torch.equal(a, b) for a, b in zip(adapted, plain, strict=True)]
    assert same == [True, True, False, False, False]
    first, _ = (module for name, module in model.named_modules() if name.endswith(".moe_lora"))
    torch.testing.assert_close(adapted[2], first.active_experts()[0](plain[2])[0])


def test_disabling_gives_the_plain_tower(tower):
    plain = features(tower)
    model = adapt(tower)
    adapted = features(model)
    assert not torch.equal(adapted, plain)
    with model.disable_adapter():
        assert torch.equal(features(model), plain)
    assert torch.equal(features(model), adapted)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saved_adapters_come_back_bit_for_bit(tower, tmp_path, low_cpu_mem_usage):
    model = adapt(copy.deepcopy(tower))
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    assert type(PeftConfig.from_pretrained(tmp_path)) is MoELoraConfig
    again = PeftModel.from_pretrained(tower, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(features(again), features(model))


def test_unload_returns_the_plain_tower(tower):
    plain = features(tower)
    base = adapt(tower).unload()
    assert base is tower
    assert torch.equal(features(base), plain)
    assert not [name for name, _ in base.named_modules() if "moe_lora" in name]


def test_training_moves_the_experts_alone(tower):
    model = adapt(tower).train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    split = {name: tensor.clone() for name, tensor in experts_of(model).items() if name.endswith("lora_A")}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    target = torch.randn(features(model).shape, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(6):
        loss = (run(model).last_hidden_state - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    now = model.state_dict()
    assert len(split) == 2
    assert all(torch.equal(now[name], tensor) for name, tensor in (frozen | split).items())


# On CLIP's towers


def test_several_adapters_add_switch_and_delete(clip_tower, tmp_path):
    other = adapt(copy.deepcopy(clip_tower), seed=5, r=2, layers_to_transform=[0, 3])
    other.save_pretrained(tmp_path)
    plain, model = features(clip_tower), adapt(clip_tower)
    first = features(model)
    model.add_adapter("fresh", MoELoraConfig(r=4, layers_to_transform=[1, 3], seed=7))
    randomize(model, seed=3, adapter_name="fresh")
    assert torch.equal(features(model), first)
    model.load_adapter(tmp_path, "other")
    assert torch.equal(features(model), first)
    model.set_adapter("other")
    assert torch.equal(features(model), features(other))
    model.set_adapter("fresh")
    assert not torch.equal(features(model), first)
    trained = {
        name.split("moe_lora_experts.")[1].split(".")[0] for name, p in model.named_parameters() if p.requires_grad
    }
    assert trained == {"fresh"}
    model.set_adapter("default")
    assert torch.equal(features(model), first)
    with model.disable_adapter():
        assert torch.equal(features(model), plain)
    for name in ("other", "fresh"):
        model.delete_adapter(name)
    assert torch.equal(features(model), first)
    assert list(model.peft_config) == ["default"]


def test_trainable_parameters_are_printed(clip_tower, capsys):
    model = adapt(clip_tower)
    model.print_trainable_parameters()
    assert capsys.readouterr().out.startswith("trainable params: 1,280 || all params: ")


def test_injected_experts_are_the_same(clip_tower):
    wrapped = adapt(copy.deepcopy(clip_tower))
    injected = inject_adapter_in_model(MoELoraConfig(r=4, layers_to_transform=[1, 3]), clip_tower)
    assert injected is clip_tower
    assert torch.equal(features(randomize(injected)), features(wrapped))


def test_state_dict_of_the_adapter(clip_tower):
    model, other = adapt(copy.deepcopy(clip_tower)), adapt(clip_tower, seed=3)
    randomize(other, seed=4)
    state_dict = get_peft_model_state_dict(model)
    assert {name.rpartition(".")[2] for name in state_dict} == {"router", "lora_A", "lora_B"}
    assert len(state_dict) == 6
    assert not torch.equal(features(other), features(model))
    result = set_peft_model_state_dict(other, state_dict)
    assert not result.unexpected_keys
    assert torch.equal(features(other), features(model))


def test_transformers_own_adapter_methods(clip_tower, tmp_path):
    fresh, plain = copy.deepcopy(clip_tower), features(clip_tower)
    clip_tower.add_adapter(MoELoraConfig(r=4, layers_to_transform=[1, 3]), "first")
    adapted = features(randomize(clip_tower, adapter_name="first"))
    clip_tower.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    fresh.load_adapter(str(tmp_path), "second")
    assert fresh.active_adapters() == ["second"]
    assert torch.equal(features(fresh), adapted)
    fresh.disable_adapters()
    assert torch.equal(features(fresh), plain)
    fresh.enable_adapters()
    assert torch.equal(features(fresh), adapted)
    fresh.delete_adapter("second")
    assert torch.equal(features(fresh), plain)


def test_gradient_checkpointing_changes_no_gradient(clip_tower):
    model = adapt(clip_tower, lora_dropout=0.0).train()

    def gradients():
        model.zero_grad()
        run(model).last_hidden_state.square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    torch.manual_seed(0)
    expected = gradients()
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    model.gradient_checkpointing_enable()
    torch.manual_seed(0)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_experts_on_a_half_precision_tower_stay_in_float32(clip_tower, tmp_path):
    model = adapt(clip_tower.to(torch.bfloat16))
    assert {tensor.dtype for tensor in experts_of(model).values()} == {torch.float32}
    identity = experts_of(model)["base_model.model." + _layer_prefix(clip_tower) + "lora_A"]
    torch.testing.assert_close(identity @ identity.transpose(1, 2), torch.eye(4).expand(4, 4, 4))
    outputs = run(model).last_hidden_state
    assert outputs.dtype == torch.bfloat16
    outputs.float().square().mean().backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad
    )
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(build_like(clip_tower).to(torch.bfloat16), tmp_path).eval()
    assert torch.equal(features(again), outputs.detach())


def build_like(tower):
    return build(type(tower).__name__)


def _layer_prefix(tower):
    name = next(name for name, _ in tower.named_modules() if name.endswith("encoder.layers.1") and "text" not in name)
    return f"{name}.moe_lora.moe_lora_experts.default."


def test_a_whole_tower_may_be_halved_later(clip_tower):
    assert features(adapt(clip_tower).to(torch.bfloat16)).dtype == torch.bfloat16


def test_copies_keep_their_own_experts(clip_tower):
    model = adapt(clip_tower)
    twin = copy.deepcopy(model)
    before = features(model)
    with torch.no_grad():
        for tensor in experts_of(twin).values():
            tensor.zero_()
    assert torch.equal(features(model), before)
    assert not torch.equal(features(twin), before)


# Which layers


def test_every_layer_by_default(clip_tower):
    model = adapt(clip_tower, layers_to_transform=None)
    adapted = [name for name, _ in clip_tower.named_modules() if name.endswith(".moe_lora")]
    assert len(adapted) == 4
    assert model.peft_config["default"].layers_to_transform is None


def test_missing_layer_is_named(tower):
    with pytest.raises(ValueError, match=r"`layers_to_transform` holds 4, but the model's layers are 0 to 3"):
        get_peft_model(tower, MoELoraConfig(r=4, layers_to_transform=[1, 4]))


def test_experts_stay_out_of_the_text_tower(tiny_clip):
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 50,
        "bos_token_id": 48,
        "eos_token_id": 49,
    }
    siglip = SiglipModel(SiglipConfig(vision_config=SIZES | {"intermediate_size": 64}, text_config=text))
    for model in (tiny_clip, siglip):
        inject_adapter_in_model(MoELoraConfig(r=4, layers_to_transform=[0, 1]), model)
        adapted = {name.rpartition(".moe_lora.")[0] for name, _ in model.named_parameters() if ".moe_lora." in name}
        assert adapted == {"vision_model.encoder.layers.0", "vision_model.encoder.layers.1"}


def test_a_text_tower_alone_is_refused(tiny_clip):
    with pytest.raises(ValueError, match="is a text tower"):
        get_peft_model(tiny_clip.text_model, MoELoraConfig(r=4))


def test_layers_of_another_name_are_named_by_the_user():
    torch.manual_seed(0)
    tower = ViTModel(ViTConfig(**SIZES, intermediate_size=64)).eval()
    with pytest.raises(ValueError, match=r"name the layers to adapt in `target_modules`"):
        get_peft_model(tower, MoELoraConfig(r=4))
    plain = features(tower)
    model = adapt(tower, layers_to_transform=None, target_modules=r"layers\.[13]")
    assert not torch.equal(features(model), plain)
    with model.disable_adapter():
        assert torch.equal(features(model), plain)


class TupleLayer(nn.Module):
    """An encoder layer that answers with a tuple, as transformers' did before version 5 and other libraries' still do."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(32), nn.Linear(32, 32)

    def forward(self, hidden_states):
        return self.linear(self.norm(hidden_states)), "attention"


def test_a_layer_may_answer_with_a_tuple():
    torch.manual_seed(0)
    model = nn.Module()
    model.encoder = nn.Module()
    model.encoder.layers = nn.ModuleList([TupleLayer(), TupleLayer()])
    tokens = torch.randn(2, 5, 32)
    plain, _ = model.encoder.layers[1](tokens)
    inject_adapter_in_model(MoELoraConfig(r=4, layers_to_transform=[1]), model)
    randomize(model)
    adapted, rest = model.encoder.layers[1](tokens)
    assert rest == "attention"
    experts = model.encoder.layers[1].moe_lora.active_experts()[0]
    torch.testing.assert_close(adapted, experts(plain)[0])
    assert not torch.equal(adapted, plain)


def test_merging_is_refused(tower):
    with pytest.raises(ValueError, match="cannot be merged"):
        adapt(tower).merge_and_unload()
