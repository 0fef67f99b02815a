import torch

from moeclip_hf.training.sampler import EpochSampler
from moeclip_hf.training.schedule import get_step_schedule


def test_rate_is_halved_at_each_milestone():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    schedule = get_step_schedule(optimizer, milestones=[2, 5], gamma=0.5)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]


def test_order_follows_from_seed_and_epoch_alone():
    sampler, other = EpochSampler(range(20), seed=3), EpochSampler(range(20), seed=3)
    sampler.set_epoch(2)
    torch.manual_seed(5)
    first = list(sampler)
    other.set_epoch(2)
    torch.manual_seed(6)
    assert first == list(sampler) == list(other)
    assert sorted(first) == list(range(20))
    other.set_epoch(3)
    assert list(other) != first
    assert len(other) == 20


def test_order_does_not_use_the_global_generator():
    before = torch.get_rng_state()
    list(EpochSampler(range(20), seed=3))
    assert torch.equal(torch.get_rng_state(), before)
