"""Each loss against its formula written out, and against numbers worked out by hand."""

import math

import pytest
import reference
import torch

from moeclip_hf.loss_moeclip import (
    classification_loss,
    dice_loss,
    etf_loss,
    expert_cosines,
    focal_loss,
    load_balancing_loss,
    segmentation_loss,
)


def random_codes(num_experts=4, r=3, hidden_size=12, tokens=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(1, tokens, num_experts, r, generator=generator, requires_grad=True)
    lora_b = torch.randn(num_experts, hidden_size, r, generator=generator, requires_grad=True)
    return codes, lora_b


def expert_outputs(codes, lora_b, scaling):
    return scaling * torch.einsum("tir,ivr->tiv", codes.flatten(0, 1), lora_b)


def test_focal_loss_of_one_pixel_by_hand():
    logits, masks = torch.tensor([[[math.log(3.0)]]]), torch.ones(1, 1, 1)
    pt = 0.75 * (1 - 1e-5) + 0.25 * 1e-5 + 1e-5
    assert focal_loss(logits, masks).item() == pytest.approx(-((1 - pt) ** 2) * math.log(pt), rel=1e-5)
    assert focal_loss(-logits, 1 - masks).item() == pytest.approx(-((1 - pt) ** 2) * math.log(pt), rel=1e-5)


def test_focal_loss_stays_finite_where_the_model_is_sure_and_wrong():
    logits = torch.tensor([[[200.0, -200.0]]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[[0.0, 1.0]]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(-((1 - 2e-5) ** 2) * math.log(2e-5), rel=1e-3)
    assert logits.grad.isfinite().all()


def test_dice_loss_by_hand():
    probabilities, masks = torch.tensor([[[0.5, 1.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    assert dice_loss(probabilities, masks).item() == pytest.approx(1 - (2 * 1.5 + 1) / (1.5 + 3 + 1))
    assert dice_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == 0


def test_segmentation_loss_and_gradient_equal_the_formula():
    case = reference.Case()
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 16, 8, generator=generator, requires_grad=True) for _ in range(3)]
    texts = torch.randn(2, 2, 8, generator=generator)
    masks = (torch.rand(2, 56, 56, generator=generator) > 0.7).float()
    features_small = [0.02 * f for f in features]
    slow = sum(reference.segmentation(case, f, texts, masks) for f in features_small)
    slow_gradients = torch.autograd.grad(slow, features, retain_graph=True)

    logits = torch.stack(
        [100 * torch.einsum("bnp,bp->bn", f, texts[:, 1] - texts[:, 0]).unflatten(1, (4, 4)) for f in features_small]
    )
    fast = segmentation_loss(logits, masks, torch.tensor([True, True]))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=0)
    for ours, theirs in zip(torch.autograd.grad(fast, features), slow_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_only_images_with_a_mask_enter_the_segmentation_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    masks = (torch.rand(3, 20, 20, generator=generator) > 0.5).float()
    known = torch.tensor([True, False, True])
    loss = segmentation_loss(logits, masks, known)
    alone = segmentation_loss(logits[:, known], masks[known], known[known])
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert logits.grad[:, 1].eq(0).all()
    assert logits.grad[:, 0].ne(0).any()


def test_no_mask_at_all_gives_a_zero_attached_to_the_graph():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.ones(3, 20, 20), torch.zeros(3, dtype=torch.bool))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.eq(0).all()


def test_classification_loss_equals_the_formula():
    generator = torch.Generator().manual_seed(0)
    image_embeds, texts = torch.randn(3, 8, generator=generator), torch.randn(3, 2, 8, generator=generator)
    labels = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        classification_loss(image_embeds, texts, labels), reference.cross_entropy(image_embeds, texts, labels)
    )


def test_balance_loss_equals_the_formula_and_is_least_for_a_uniform_router():
    router_logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    slow = reference.balance(router_logits.softmax(-1).flatten(0, 1))
    fast = load_balancing_loss(router_logits)
    torch.testing.assert_close(fast, slow)
    ours, theirs = torch.autograd.grad(fast, router_logits)[0], torch.autograd.grad(slow, router_logits)[0]
    torch.testing.assert_close(ours, theirs)
    assert load_balancing_loss(torch.zeros(2, 5, 4)).item() == 0
    all_on_one = torch.tensor([100.0, 0, 0, 0]).expand(2, 5, 4)
    assert load_balancing_loss(all_on_one).item() == pytest.approx(4, rel=1e-4)  # (std / mean)^2 of (n, 0, 0, 0)


def test_balance_loss_at_the_start_has_a_finite_gradient():
    router_logits = torch.zeros(2, 5, 4, requires_grad=True)
    load_balancing_loss(router_logits).backward()
    assert router_logits.grad.isfinite().all()


@pytest.mark.parametrize("num_experts", [2, 4, 5])
def test_etf_loss_and_gradients_equal_the_formula_on_whole_outputs(num_experts):
    codes, lora_b = random_codes(num_experts)
    slow = reference.etf(expert_outputs(codes, lora_b, 2.0))
    fast = etf_loss(codes, lora_b, 2.0)
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast, (codes, lora_b)), torch.autograd.grad(slow, (codes, lora_b)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_etf_loss_is_zero_on_a_simplex():
    num_experts = 4
    simplex = torch.eye(num_experts) - 1 / num_experts  # columns at equal angles, cosine -1 / 3
    lora_b = simplex.T.unsqueeze(-1)  # (num_experts, hidden_size, r = 1)
    assert etf_loss(torch.ones(1, 3, num_experts, 1), lora_b, 2.0).item() == pytest.approx(0, abs=1e-10)


def test_etf_loss_of_experts_at_zero_has_its_value_and_a_finite_gradient():
    codes, lora_b = random_codes()
    zero = torch.zeros_like(lora_b, requires_grad=True)
    loss = etf_loss(codes, zero, 2.0)
    assert loss.item() == pytest.approx((4 * 1 + 12 / 9) / 16)
    loss.backward()
    assert zero.grad.isfinite().all()
    assert codes.grad.isfinite().all()


def test_cosines_are_those_of_the_whole_outputs():
    codes, lora_b = random_codes()
    outputs = expert_outputs(codes, lora_b, 2.0)
    expected = torch.nn.functional.cosine_similarity(outputs.unsqueeze(2), outputs.unsqueeze(1), dim=-1)
    torch.testing.assert_close(expert_cosines(codes, lora_b, 2.0), expected)


def test_a_single_expert_has_neither_balance_nor_frame():
    codes, lora_b = random_codes(num_experts=1)
    router_logits = torch.randn(2, 5, 1, requires_grad=True)
    total = load_balancing_loss(router_logits) + etf_loss(codes, lora_b, 2.0)
    assert total.item() == 0
    total.backward()
    assert router_logits.grad.eq(0).all()
