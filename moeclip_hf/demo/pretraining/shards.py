"""Sample files: the stream of pretraining pictures, made ahead by another process and read as one growing pool."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np

from ..workers import end_with_parent
from .samples import IRREGULAR_SHARE_OF_SAMPLES, draw_sample, find_mixture


def patch_shares(mask: np.ndarray, patch_size: int) -> np.ndarray:
    """The share of every patch that a mask (size, size) in 0..255 covers, as uint8 (grid, grid)."""
    grid = mask.shape[0] // patch_size
    blocks = mask.reshape(grid, patch_size, grid, patch_size).astype(np.float32)
    return np.ceil(blocks.mean((1, 3))).astype(np.uint8)


def write_shard(
    folder: Path, index: int, count: int, seed: int, size: int, patch_size: int, paired: bool, mixture: str
) -> Path:
    """Draw samples index * count ... of the stream `seed` into one file, unless it is there already.

    `paired` tries an irregularity in every picture and keeps its twin without it. `mixture` is a name as
    [`find_mixture`] takes it.
    """
    path = folder / f"shard-{index:05d}.npz"
    if path.exists():
        return path
    share = 1.0 if paired else IRREGULAR_SHARE_OF_SAMPLES
    first = index * count
    samples = [
        draw_sample(seed, number, size, share, mixture=find_mixture(mixture, number))
        for number in range(first, first + count)
    ]
    temporary = path.with_suffix(".partial")
    twins = {"twins": np.stack([sample.twin for sample in samples])} if paired else {}
    with open(temporary, "wb") as file:
        np.savez(
            file,
            **twins,
            images=np.stack([sample.image for sample in samples]),
            irregular=np.stack([patch_shares(sample.mask, patch_size) for sample in samples]),
            foreground=np.stack([patch_shares(sample.foreground, patch_size) for sample in samples]),
            nouns=np.array([sample.noun for sample in samples]),
        )
    os.replace(temporary, path)
    return path


def _write_shards(folder: Path, indices: range, *arguments: int | str) -> None:
    os.nice(10)  # training comes first
    end_with_parent()
    for index in indices:
        write_shard(folder, index, *arguments)


class SamplePool:
    """The first samples of a stream, drawn in background processes while training already runs.

    Which samples a step may use depends on the step alone (`available`), never on how far the drawing has come:
    training waits for them instead, so a run is the same on a slow and on a fast machine.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        size: int,
        patch_size: int,
        total: int,
        first: int,
        growth: int,
        shard_size: int = 500,
        paired: bool = False,
        mixture: str = "broad",
        workers: int = 1,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.total, self.first, self.growth = folder, total, min(first, total), growth
        self.shard_size = shard_size
        self.shards: list[dict[str, np.ndarray]] = []
        count = -(-total // shard_size)
        context = multiprocessing.get_context("spawn")
        self.processes = [
            context.Process(
                target=_write_shards,
                args=(folder, range(worker, count, workers), shard_size, seed, size, patch_size, paired, mixture),
                daemon=True,
            )
            for worker in range(workers)
        ]
        for process in self.processes:
            process.start()

    def available(self, step: int) -> int:
        """How many samples a step draws from."""
        return int(self.first + min(1.0, step / max(1, self.growth)) * (self.total - self.first))

    def _load(self, index: int) -> None:
        path = self.folder / f"shard-{index:05d}.npz"
        while not path.exists():
            if not any(process.is_alive() for process in self.processes) and not path.exists():
                raise RuntimeError(f"the processes that draw samples ended before {path} was written; run it again")
            time.sleep(0.5)
        with np.load(path) as file:
            self.shards.append({name: file[name] for name in file.files})

    def get(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """The samples of these numbers, stacked."""
        while len(self.shards) <= numbers.max() // self.shard_size:
            self._load(len(self.shards))
        rows = [(self.shards[number // self.shard_size], number % self.shard_size) for number in numbers]
        return {name: np.stack([shard[name][row] for shard, row in rows]) for name in rows[0][0]}

    def close(self) -> None:
        """Stop drawing."""
        for process in self.processes:
            process.terminate()
            process.join()
