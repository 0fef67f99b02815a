import torch

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
