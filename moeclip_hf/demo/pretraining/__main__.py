"""`python -m moeclip_hf.demo.pretraining --output DIR`: make the tiny CLIP anew."""

import argparse
from pathlib import Path

import torch

from .train import Recipe, Stage, pretrain


STAGES = (
    Stage(
        "main",
        size=112,
        steps=2300,
        images=24000,
        first=4000,
        growth=1000,
        batch_size=48,
        learning_rate=1e-3,
        warmup=100,
        decay=600,
    ),
)


def main() -> None:
    """Parse the arguments and run or resume the shipped recipe."""
    parser = argparse.ArgumentParser(prog="python -m moeclip_hf.demo.pretraining", description=__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for samples, checkpoint, log and tiny_clip/"
    )
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples (default 1)")
    parser.add_argument(
        "--float32", action="store_true", help="no bfloat16 autocast (it needs AVX512-BF16 or AMX to pay)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pretrain(Recipe(STAGES), arguments.output, workers=arguments.workers, bfloat16=not arguments.float32)


if __name__ == "__main__":
    main()
