"""The learning-rate schedule of the paper: a constant rate, halved at given steps."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def get_step_factor(step: int, milestones: Sequence[int], gamma: float) -> float:
    """Computes `gamma ** (number of milestones reached)`.

    Args:
        step (`int`): Optimizer steps done.
        milestones (`Sequence[int]`): Steps at which the rate changes, ascending.
        gamma (`float`): The factor at each of them.

    Returns:
        `float`: The factor on the initial rate in the step that follows.
    """
    return gamma ** bisect_right(milestones, step)


def get_step_schedule(optimizer: Optimizer, milestones: Sequence[int], gamma: float) -> LambdaLR:
    """Creates a schedule that multiplies the learning rate by `gamma` at each milestone.

    Args:
        optimizer (`torch.optim.Optimizer`): The optimizer with its initial learning rates.
        milestones (`Sequence[int]`): Optimizer steps, ascending; none for a constant rate.
        gamma (`float`): The factor at each of them.

    Returns:
        `torch.optim.lr_scheduler.LambdaLR`: The schedule, to be stepped after each optimizer step.
    """
    return LambdaLR(optimizer, partial(get_step_factor, milestones=tuple(milestones), gamma=gamma))
