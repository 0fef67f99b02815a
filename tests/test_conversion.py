"""The converter, and with it the whole model, against the slow reference in every variation of the checkpoints."""

import copy
import re

import pytest
import reference
import torch
from reference import Case

from moeclip_hf import convert_original


VARIATIONS = {
    "default": Case(),
    "one_expert": Case(num_experts=1, num_experts_per_tok=1, seed=1),
    "three_experts_with_remainder": Case(num_experts=3, num_experts_per_tok=1, r=2, seed=2),
    "all_experts_routed": Case(num_experts=4, num_experts_per_tok=4, seed=3),
    "five_experts_two_heads": Case(num_experts=5, num_experts_per_tok=3, r=3, width=128, seed=4),
    "separate_projections": Case(shared=False, seed=5),
    "leaky_relu": Case(leaky_relu=True, seed=6),
    "separate_leaky_relu": Case(shared=False, leaky_relu=True, seed=7),
    "no_averaging": Case(kernel_sizes=(1,), seed=8),
    "two_windows": Case(kernel_sizes=(1, 5), seed=9),
    "dense_lora_a": Case(fofs=False, seed=10),
    "experts_in_two_layers": Case(moe_layers=(1, 3), seed=11),
    "maps_of_two_layers": Case(feature_layers=(1, 2), seed=12),
    "quick_gelu": Case(hidden_act="quick_gelu", seed=13),
    "positions_kept": Case(pretrained_size=56, seed=14),
    "positions_shrunk": Case(pretrained_size=84, seed=15),
}


def convert(case, clip, checkpoint):
    return convert_original(
        clip,
        copy.deepcopy(checkpoint),
        image_size=case.image_size,
        feature_layers=case.feature_layers,
        layers_to_transform=case.moe_layers,
        lora_alpha=case.lora_alpha,
        lora_dropout=0.0,
        num_experts_per_tok=case.num_experts_per_tok,
        patch_average_kernel_sizes=case.kernel_sizes,
        hidden_act=case.hidden_act,
    )


def by_original_name(case, named_tensors):
    """Tensors of our model under the names of the authors' checkpoint."""
    heads = {
        "image_head.layer_norm.weight": "det_proj.ln.weight",
        "image_head.layer_norm.bias": "det_proj.ln.bias",
        "image_head.depthwise_conv.weight": "det_proj.adapter.0.weight",
        "image_head.pointwise_conv.weight": "det_proj.adapter.2.weight",
    }
    renamed = {}
    for name, tensor in named_tensors:
        if match := re.search(r"layers\.(\d+)\.moe_lora.*\.(\w+)$", name):
            adapter = f"image_adapter.moe_adapters.{case.moe_layers.index(int(match.group(1)))}"
            if match.group(2) == "router":
                renamed[f"{adapter}.gate.weight"] = tensor
            else:
                for i, matrix in enumerate(tensor):
                    renamed[f"{adapter}.experts.{i}.{match.group(2)}.weight"] = matrix
        elif match := re.fullmatch(r"patch_projections\.(\d+)\.weight", name):
            middle = "0." if case.leaky_relu else ""
            renamed[f"image_adapter.seg_proj.{match.group(1)}.fc.{middle}weight"] = tensor
        elif name == "text_adapter.weight":
            renamed["text_adapter.0.fc.0.weight"] = tensor
        else:
            renamed[f"image_adapter.{heads[name]}"] = tensor
    return renamed


@pytest.fixture(params=VARIATIONS.values(), ids=VARIATIONS.keys())
def case(request):
    return request.param


def test_outputs_losses_and_gradients_equal_the_reference(case):
    clip, checkpoint, batch = (
        reference.random_clip(case),
        reference.random_checkpoint(case),
        reference.random_batch(case),
    )
    trained = reference.trained_tensors(checkpoint, case)
    for tensor in trained.values():
        tensor.requires_grad_()
    expected = reference.forward(case, clip, checkpoint, batch)
    expected["loss"].backward()

    model = convert(case, clip, checkpoint)
    output = model(**batch)
    assert len(output.patch_embeds) == len(expected["patch_embeds"])
    for ours, theirs in zip(output.patch_embeds, expected["patch_embeds"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.text_embeds[batch["object_ids"]], expected["text_embeds"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.image_embeds, expected["image_embeds"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.image_score, expected["image_score"], atol=1e-5, rtol=0)
    value_range = (expected["anomaly_logits"].max() - expected["anomaly_logits"].min()).item()
    torch.testing.assert_close(output.anomaly_logits, expected["anomaly_logits"], atol=1e-4 * value_range, rtol=0)
    for name in ("classification_loss", "segmentation_loss", "aux_loss", "etf_loss", "loss"):
        torch.testing.assert_close(
            output[name], expected[name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )

    output.loss.backward()
    gradients = by_original_name(case, ((n, p.grad) for n, p in model.named_parameters() if p.requires_grad))
    assert gradients.keys() == trained.keys()
    for name, tensor in trained.items():
        difference = (gradients[name] - tensor.grad).norm() / tensor.grad.norm().clamp(min=1e-12)
        assert difference < 1e-4, f"{name}: relative difference {difference:.2e}"


@pytest.mark.parametrize("name", ["default", "dense_lora_a"])
def test_ten_optimizer_steps_equal_the_reference(name):
    case = VARIATIONS[name]
    clip, checkpoint, batch = (
        reference.random_clip(case),
        reference.random_checkpoint(case),
        reference.random_batch(case, 2),
    )
    model = convert(case, clip, checkpoint)
    trained = reference.trained_tensors(checkpoint, case)
    for tensor in trained.values():
        tensor.requires_grad_()
    theirs = torch.optim.Adam(trained.values(), lr=5e-4, betas=(0.5, 0.999))
    ours = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-4, betas=(0.5, 0.999))
    for _ in range(10):
        expected = reference.forward(case, clip, checkpoint, batch)["loss"]
        loss = model(**batch).loss
        torch.testing.assert_close(loss, expected, atol=0, rtol=1e-5)
        for optimizer, value in ((theirs, expected), (ours, loss)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    converted = by_original_name(case, ((n, p) for n, p in model.named_parameters() if p.requires_grad))
    for key, tensor in trained.items():
        torch.testing.assert_close(converted[key], tensor, atol=1e-4, rtol=0)


def test_every_tensor_has_one_place(case):
    model = convert(case, reference.random_clip(case), reference.random_checkpoint(case))
    names = reference.trained_tensors(reference.random_checkpoint(case), Case(fofs=False)).keys()
    adapters = [(n, t) for n, t in model.state_dict().items() if not n.startswith(("vision_model.", "text_model."))]
    adapters += [(n, t) for n, t in model.state_dict().items() if ".moe_lora." in n]
    assert by_original_name(case, adapters).keys() == names
    assert model.config.moe_lora["orthogonal_split"] == case.fofs
    assert model.config.share_patch_projections == (case.shared or len(case.kernel_sizes) == 1)


def test_conversion_keeps_the_checkpoint_and_survives_saving(tmp_path):
    case = Case()
    clip, checkpoint, batch = (
        reference.random_clip(case),
        reference.random_checkpoint(case),
        reference.random_batch(case),
    )
    before = copy.deepcopy(checkpoint)
    model = convert_original(
        clip, checkpoint, image_size=56, feature_layers=(0, 1, 2, 3), layers_to_transform=(0, 1, 2, 3), lora_alpha=8
    )
    for part in before:
        assert all(torch.equal(before[part][name], tensor) for name, tensor in checkpoint[part].items())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(**batch).anomaly_logits, model(**batch).anomaly_logits)
    assert again.config.vision_config.hidden_act == again.config.text_config.hidden_act == "gelu"


def test_experts_follow_the_order_of_layers_to_transform():
    case = Case(moe_layers=(3, 1))
    model = convert(case, reference.random_clip(case), reference.random_checkpoint(case))
    gate = reference.random_checkpoint(case)["image_adapter"]["moe_adapters.0.gate.weight"]
    assert torch.equal(model.moe_lora_layers()[3].router, gate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip, checkpoint: checkpoint.pop("image_adapter"), "has no 'image_adapter'"),
        (lambda clip, checkpoint: checkpoint["image_adapter"].update(other=torch.ones(1)), "unknown tensor 'other'"),
        (lambda clip, checkpoint: clip.update(other=torch.ones(1)), "unknown tensor 'other'"),
        (lambda clip, checkpoint: clip.pop("visual.conv1.weight"), "lacks the tensor 'visual.conv1.weight'"),
        (lambda clip, checkpoint: clip.pop("ln_final.bias"), "gives no 'text_model.final_layer_norm.bias'"),
        (lambda clip, checkpoint: checkpoint["image_adapter"].pop("seg_proj.3.fc.weight"), "3 patch projections"),
        (
            lambda clip, checkpoint: checkpoint["image_adapter"].pop("moe_adapters.0.experts.0.lora_A.weight"),
            "lacks the tensor 'moe_adapters.0.experts.0.lora_A.weight'",
        ),
        (
            lambda clip, checkpoint: checkpoint["image_adapter"].update({"seg_proj.0.fc.weight": torch.ones(24, 63)}),
            "'patch_projections.0.weight' has shape",
        ),
    ],
)
def test_files_that_do_not_fit_say_why(change, message):
    case = Case()
    clip, checkpoint = reference.random_clip(case), reference.random_checkpoint(case)
    change(clip, checkpoint)
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(case, clip, checkpoint)


def test_layers_must_match_the_adapters():
    case = Case()
    with pytest.raises(ValueError, match="must name 4 layers"):
        convert_original(
            reference.random_clip(case),
            reference.random_checkpoint(case),
            image_size=56,
            feature_layers=(0, 1, 2, 3),
            layers_to_transform=(1, 3),
        )
