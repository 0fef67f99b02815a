"""A shuffled order of the training samples that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Visits every sample once an epoch, in an order that is a pure function of (seed, epoch).

    So a resumed run finds its place again, in one process or several; a sampler that draws from a generator as it
    goes would depend on the run's history.

    Args:
        data_source (`Sized`): The dataset.
        seed (`int`): Chooses the sequence of orders.
    """

    def __init__(self, data_source: Sized, seed: int):
        self.data_source = data_source
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.data_source)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.randperm(len(self.data_source), generator=generator).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next pass takes.

        Args:
            epoch (`int`): Counted from 0.
        """
        self.epoch = epoch
