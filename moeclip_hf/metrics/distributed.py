"""Brings together what several processes have measured."""

from typing import Protocol, TypeVar

import torch


class Mergeable(Protocol):
    """Anything that collects and can add what another of its kind has collected."""

    def merge(self, other) -> None:
        """Adds all that another object of its kind has seen."""


Part = TypeVar("Part", bound=Mergeable)


def merge_across_processes(part: Part) -> Part:
    """Merges the metrics of all processes of `accelerate launch` or `torchrun`, in the order of their ranks.

    Every process must call it. Each must have seen samples of its own: a sample that two processes have seen, such as
    those by which a sampler fills up the last batch, counts twice.

    Args:
        part ([`PixelMetrics`], [`ImageMetrics`] or [`BenchmarkProtocol`]): what this process has collected.

    Returns:
        What all processes have collected together, the same on each of them; `part` itself where there is only one.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return part
    is_first = distributed.get_rank() == 0
    parts = [None] * distributed.get_world_size() if is_first else None
    distributed.gather_object(part, parts)
    merged = [None]
    if is_first:
        merged = parts[:1]
        for other in parts[1:]:
            merged[0].merge(other)
    distributed.broadcast_object_list(merged)
    return merged[0]
