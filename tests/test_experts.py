"""FOFS, routing and the mixture of experts against one-token-at-a-time formulas."""

import copy

import pytest
import reference
import torch

from moeclip_hf import MoELoraConfig
from moeclip_hf.experts_moeclip import (
    MoELoraExperts,
    orthogonal_split_lora_a,
    routing_weights,
    select_experts,
    split_features,
)


WIDTH = 32


def build_experts(seed=0, **fields):
    experts = MoELoraExperts(MoELoraConfig(**{"r": 4, "lora_dropout": 0.0} | fields), WIDTH, layer_index=1).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        experts.router.copy_(0.3 * torch.randn(experts.router.shape, generator=generator))
        experts.lora_B.copy_(0.3 * torch.randn(experts.lora_B.shape, generator=generator))
    return experts


def as_original(experts):
    """The experts' tensors under the names of the authors' checkpoint, as adapter 0."""
    tensors = {"moe_adapters.0.gate.weight": experts.router}
    for i in range(len(experts.lora_B)):
        tensors[f"moe_adapters.0.experts.{i}.lora_A.weight"] = experts.lora_A[i]
        tensors[f"moe_adapters.0.experts.{i}.lora_B.weight"] = experts.lora_B[i]
    return tensors


@pytest.mark.parametrize(("features", "experts", "sizes"), [(8, 4, [2] * 4), (10, 4, [3, 3, 2, 2]), (5, 1, [5])])
def test_chunks_differ_by_at_most_one_larger_first(features, experts, sizes):
    assert split_features(features, experts) == sizes


@pytest.mark.parametrize(("num_experts", "r"), [(1, 8), (3, 10), (4, 8), (5, 6)])
def test_fofs_rows_are_orthonormal_on_disjoint_chunks(num_experts, r):
    lora_a = orthogonal_split_lora_a(num_experts, r, WIDTH, torch.Generator().manual_seed(0))
    rows = lora_a.flatten(0, 1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(num_experts * r), atol=1e-5, rtol=0)
    for i, (start, stop) in enumerate(reference.chunk_bounds(WIDTH, num_experts)):
        assert lora_a[i, :, :start].eq(0).all()
        assert lora_a[i, :, stop:].eq(0).all()
        assert lora_a[i, :, start:stop].ne(0).all()


def test_lora_a_is_frozen_and_saved_with_fofs_and_trained_without():
    split, dense = build_experts(), build_experts(orthogonal_split=False)
    assert "lora_A" not in dict(split.named_parameters())
    assert "lora_A" in split.state_dict()
    assert "lora_A" in dict(dense.named_parameters())
    bound = WIDTH**-0.5  # of a Kaiming-uniform draw with a = sqrt(5)
    assert dense.lora_A.abs().max() <= bound
    assert dense.lora_A.abs().max() > 0.9 * bound


def test_initial_values_follow_the_seed_and_the_layer():
    def lora_a(seed, layer):
        return MoELoraExperts(MoELoraConfig(r=4, seed=seed), WIDTH, layer).lora_A

    assert torch.equal(lora_a(0, 1), lora_a(0, 1))
    assert not torch.equal(lora_a(0, 1), lora_a(0, 2))
    assert not torch.equal(lora_a(0, 1), lora_a(1, 1))
    fresh = MoELoraExperts(MoELoraConfig(r=4), WIDTH, 0)
    assert fresh.router.eq(0).all()
    assert fresh.lora_B.eq(0).all()


def test_initial_values_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = MoELoraExperts(MoELoraConfig(r=4, orthogonal_split=False), WIDTH, 0).lora_A
    torch.manual_seed(2)
    assert torch.equal(first, MoELoraExperts(MoELoraConfig(r=4, orthogonal_split=False), WIDTH, 0).lora_A)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_chosen_weights_sum_to_one_and_keep_their_proportions(k):
    probabilities = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    weights = routing_weights(probabilities, select_experts(probabilities, k, break_ties_at_random=False))
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 7))
    assert (weights > 0).sum(-1).eq(k).all()
    smallest_chosen = torch.where(weights > 0, probabilities, 2.0).min(-1).values
    largest_left = torch.where(weights > 0, -1.0, probabilities).max(-1).values
    assert (smallest_chosen >= largest_left).all()


def test_ties_take_the_first_experts_in_evaluation_and_all_in_training():
    probabilities = torch.full((4000, 4), 0.25)
    assert select_experts(probabilities, 2, break_ties_at_random=False).eq(torch.tensor([0, 1])).all()
    torch.manual_seed(0)
    chosen = select_experts(probabilities, 2, break_ties_at_random=True)
    share = torch.bincount(chosen.flatten(), minlength=4) / len(chosen)
    torch.testing.assert_close(share, torch.full((4,), 0.5), atol=0.05, rtol=0)
    assert chosen[:, 0].ne(chosen[:, 1]).all()


def test_random_tie_breaking_never_overrules_the_router():
    probabilities = torch.tensor([[0.1, 0.4, 0.25, 0.25]]).repeat(200, 1)
    torch.manual_seed(0)
    chosen = select_experts(probabilities, 2, break_ties_at_random=True)
    assert chosen[:, 0].eq(1).all()
    assert set(chosen[:, 1].tolist()) == {2, 3}


@pytest.mark.parametrize(
    "fields",
    [{}, {"num_experts_per_tok": 1}, {"num_experts": 3, "num_experts_per_tok": 3}, {"orthogonal_split": False}]
    + [{"num_experts": 1, "num_experts_per_tok": 1}, {"adapter_weight": 0.5, "lora_alpha": 3}],
)
def test_mixture_and_its_gradients_equal_the_formula(fields):
    experts = build_experts(**fields)
    config = MoELoraConfig(**{"r": 4} | fields)
    case = reference.Case(
        num_experts=config.num_experts,
        num_experts_per_tok=config.num_experts_per_tok,
        r=config.r,
        lora_alpha=config.lora_alpha,
        adapter_weight=config.adapter_weight,
        width=WIDTH,
    )
    tokens = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(3), requires_grad=True)
    upstream = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(4))
    slow, probabilities, outputs = reference.moe_layer(case, as_original(experts), 0, tokens)
    leaves = [tokens, *experts.parameters()]
    slow_gradients = torch.autograd.grad((slow * upstream).sum(), leaves)

    mixed, router_logits, codes = experts(tokens)
    gradients = torch.autograd.grad((mixed * upstream).sum(), leaves)
    torch.testing.assert_close(mixed, slow)
    torch.testing.assert_close(router_logits.softmax(-1).flatten(0, 1), probabilities)
    torch.testing.assert_close(
        experts.scaling * torch.einsum("tir,ivr->tiv", codes.flatten(0, 1), experts.lora_B), outputs
    )
    for ours, theirs in zip(gradients, slow_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_fresh_experts_scale_the_token():
    experts = MoELoraExperts(MoELoraConfig(r=4), WIDTH, 0).eval()
    tokens = torch.randn(1, 3, WIDTH)
    torch.testing.assert_close(experts(tokens)[0], 0.9 * tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_first_gradient_is_finite_under_autocast(dtype):
    experts = MoELoraExperts(MoELoraConfig(r=4), WIDTH, 0).train()
    tokens = torch.randn(2, 50, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        mixed, router_logits, codes = experts(tokens)
    assert mixed.dtype == dtype
    assert router_logits.dtype == codes.dtype == torch.float32
    mixed.float().sum().backward()
    assert experts.lora_B.grad.isfinite().all()
    assert experts.lora_B.grad.flatten(1).abs().sum(1).gt(1e4).all()  # every expert, and far beyond half precision


def test_dropout_acts_in_training_only():
    experts = build_experts(lora_dropout=0.5)
    tokens = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(experts(tokens)[0], experts(tokens)[0])
    assert isinstance(experts.dropout, torch.nn.Dropout)
    experts.train()
    assert not torch.equal(experts(tokens)[2], experts(tokens)[2])
    assert torch.equal(experts(tokens)[1], experts.eval()(tokens)[1])  # the router sees the whole token


def test_rank_beyond_the_chunk_is_refused():
    with pytest.raises(ValueError, match=r"`r` \(9\) must not exceed the 8 input features"):
        MoELoraExperts(MoELoraConfig(r=9), WIDTH, 0)


def test_frozen_and_trained_experts_agree_to_the_last_bit():
    experts = build_experts()
    tokens = torch.randn(2, WIDTH, 16, generator=torch.Generator().manual_seed(0)).transpose(
        1, 2
    )  # as a tower's patches come from its convolution
    trained = experts(tokens)
    frozen = experts.requires_grad_(False)(tokens)
    assert all(torch.equal(a, b) for a, b in zip(trained, frozen, strict=True))


def test_copies_are_independent():
    experts = build_experts()
    twin = copy.deepcopy(experts)
    with torch.no_grad():
        twin.lora_B.zero_()
    assert experts.lora_B.abs().sum() > 0
