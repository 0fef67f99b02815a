import pytest
import torch
from torch.nn import functional as F

from moeclip_hf.training.monitor import get_expert_load, get_expert_similarity


def test_load_of_clear_choices():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 3.0, 2.0, 1.0], [3.0, 1.0, 0.0, 2.0]])
    # chosen: 0 and 1, 1 and 2, 0 and 3
    assert get_expert_load(logits, 2).tolist() == pytest.approx([2 / 6, 2 / 6, 1 / 6, 1 / 6])


def test_load_shares_ties():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[5.0, 1.0, 1.0, 1.0]]])
    # the first token: 2 slots over 4 experts; the second: one for expert 0, one over the 3 others
    assert get_expert_load(logits, 2).tolist() == pytest.approx([(0.5 + 1) / 4] + [(0.5 + 1 / 3) / 4] * 3)


def test_similarity_is_the_mean_cosine_of_pairs():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(2, 5, 3, 4, generator=generator)  # 3 experts of rank 4
    lora_b = torch.randn(3, 8, 4, generator=generator)
    outputs = torch.einsum("btkr,kvr->btkv", codes, lora_b)
    expected = sum(
        F.cosine_similarity(outputs[:, :, i], outputs[:, :, j], dim=-1).mean() for i, j in ((0, 1), (0, 2), (1, 2))
    )
    assert get_expert_similarity(codes, lora_b, scaling=2.0).item() == pytest.approx(expected.item() / 3, abs=1e-5)


def test_similarity_of_a_single_expert_is_zero():
    assert get_expert_similarity(torch.ones(2, 1, 4), torch.ones(1, 8, 4), scaling=1.0) == 0
