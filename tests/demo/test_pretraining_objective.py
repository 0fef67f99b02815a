"""What the tiny CLIP learns from: each term of the loss against a slow reference."""

import numpy as np
import pytest
import torch

from moeclip_hf.demo.pretraining.objective import noun_loss, peak_loss, rank_loss, state_loss
from moeclip_hf.processing_moeclip import smooth_anomaly_logits


def test_state_loss_matches_a_loop():
    logits = torch.tensor([[2.0, -1.0, 0.5, 1.0, 3.0]])
    shares = torch.tensor([[0.5, 0.0, 0.05, 0.01, 0.0]])
    compared = torch.tensor([[0.0, 0.0, 0.0, 0.05, 0.4]])
    terms = [(6, -2.0), (1, -1.0), (1, 1.0), (6, 3.0)]
    expected = sum(weight * np.log1p(np.exp(value)) for weight, value in terms) / 14
    assert state_loss(logits, shares, compared).item() == pytest.approx(expected, abs=1e-6)


def test_peak_loss_looks_at_three_patches_and_skips_unsure_pictures():
    logits = torch.tensor([[9.0, 3.0, 0.0, -5.0], [1.0, 1.0, 1.0, 1.0], [8.0, 8.0, 8.0, 8.0]])
    shares = torch.tensor([[0.0, 0.3, 0.0, 0.0], [0.0, 0.0, 0.01, 0.0], [0.0, 0.05, 0.0, 0.0]])
    softplus = torch.nn.functional.softplus
    expected = (softplus(torch.tensor(-4.0)) + softplus(torch.tensor(1.0))) / 2
    assert peak_loss(logits, shares).item() == pytest.approx(expected.item(), abs=1e-6)


def test_rank_loss_compares_smoothed_peaks_with_the_own_twin_and_with_all():
    logits = torch.randn(6, 25, generator=torch.Generator().manual_seed(3), requires_grad=True)
    shares = torch.zeros(6, 25)
    shares[0, [3, 4, 20]] = torch.tensor([0.5, 0.08, 0.07])  # two irregular patches and an unsure one
    shares[2, 12] = 1.0
    shares[1, 7] = 0.05  # nothing but unsure
    heights = smooth_anomaly_logits(logits.view(6, 5, 5)).view(6, 25)
    found = {0: max(heights[0, 3], heights[0, 4]), 2: heights[2, 12]}
    twins = [max(heights[row]) for row in (3, 4, 5)]
    own = [torch.log(1 + torch.exp(twins[row] - height)) for row, height in found.items()]
    all_pairs = [torch.log(1 + torch.exp(twin - height)) for height in found.values() for twin in twins]
    expected = (sum(own) / 2 + sum(all_pairs) / 6) / 2
    loss = rank_loss(logits, shares)
    torch.testing.assert_close(loss, expected)
    (gradient,), (slow,) = (torch.autograd.grad(value, logits, retain_graph=True) for value in (loss, expected))
    torch.testing.assert_close(gradient, slow)


def test_rank_loss_of_sound_pictures_is_zero_and_nothing_but_irregular_patches_is_raised():
    logits, shares = torch.randn(4, 81, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 81)
    assert rank_loss(logits, shares) == 0
    shares[:2, 0] = 1.0
    logits[:2, 80] = 20.0  # the highest patch is a sound one
    (gradient,) = torch.autograd.grad(rank_loss(logits.requires_grad_(), shares), logits)
    assert (gradient[:2, 0] < 0).all()
    assert (gradient[:2, 40:] == 0).all()
    assert (gradient[2:] >= 0).all()


def test_noun_loss_shares_the_target_among_equal_nouns_and_skips_unknown_ones():
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [9.0, 9.0, 9.0]])
    rows = logits.log_softmax(-1)
    expected = -(rows[0, :2].mean() + rows[1, :2].mean()) / 2
    assert noun_loss(logits, torch.tensor([7, 7, -1])).item() == pytest.approx(expected.item(), abs=1e-6)
    assert noun_loss(logits, torch.tensor([-1, -1, -1])).item() == 0
