"""`python -m moeclip_hf.demo.pretraining --output DIR`: make the tiny CLIP anew, or go on where a run was stopped."""

import argparse
import json
from pathlib import Path

import torch
from transformers import CLIPModel, CLIPTokenizer

from ...cli.model_options import find_device
from .measure import measure_procedural
from .stages import Recipe, Stage
from .train import pretrain
from .unfamiliar import measure_unfamiliar


# First every kind of picture by itself; then each irregular picture beside its sound twin, which leaves nothing else to
# tell the two apart by, as the rate falls. Then things above all: in pieces, where one fills many patches, then whole.
# Then, long, both kinds with several irregularities each; then products as well; then more of these, and surfaces
# of many equal marks. Then what an image's score depends on: irregular pictures above sound ones, by the highest patch
# of the smoothed map, from "damaged" on with damage as photographs show it. The mean of the weights before and after
# ranks pictures better than either; with two branches there are two ends to take it of. "calm" goes at a low rate, once
# the texts of all nouns agree on what damaged means. Last, to compare like with like: equal parts of which one is off,
# which begin on the patch grid, in pieces; then these among whole pictures, more of which have faults of structure.
STAGES = (
    Stage(
        "main",
        size=112,
        steps=1400,
        images=24000,
        first=4000,
        growth=1000,
        batch_size=48,
        learning_rate=1e-3,
        warmup=100,
        decay=0,
    ),
    Stage(
        "pairs",
        size=112,
        steps=1000,
        images=12000,
        first=2000,
        growth=500,
        batch_size=48,
        learning_rate=1e-3,
        warmup=20,
        decay=800,
        peak_weight=0.3,
        paired=True,
    ),
    Stage(
        "larger",
        size=168,
        steps=350,
        images=4000,
        first=2000,
        growth=100,
        batch_size=24,
        learning_rate=5e-4,
        warmup=20,
        decay=330,
        peak_weight=0.3,
        paired=True,
    ),
    Stage(
        "things",
        size=168,
        steps=1700,
        images=12000,
        first=1000,
        growth=1000,
        batch_size=64,
        learning_rate=1e-3,
        warmup=20,
        decay=1400,
        peak_weight=0.3,
        paired=True,
        mixture="things",
        piece=12,
    ),
    Stage(
        "whole",
        size=168,
        steps=600,
        images=4000,
        first=1000,
        growth=300,
        batch_size=24,
        learning_rate=5e-4,
        warmup=20,
        decay=580,
        peak_weight=0.3,
        paired=True,
        mixture="things",
    ),
    Stage(
        "dense",
        size=168,
        steps=2900,
        images=12000,
        first=500,
        growth=800,
        batch_size=24,
        learning_rate=8e-4,
        warmup=40,
        decay=2800,
        peak_weight=0.5,
        paired=True,
        mixture="dense",
    ),
    Stage(
        "products",
        size=168,
        steps=4000,
        images=20000,
        first=500,
        growth=1500,
        batch_size=24,
        learning_rate=8e-4,
        warmup=40,
        decay=3600,
        peak_weight=0.5,
        paired=True,
        mixture="products",
    ),
    Stage(
        "repeats",
        size=168,
        steps=3500,
        images=16000,
        first=500,
        growth=1200,
        batch_size=24,
        learning_rate=8e-4,
        warmup=40,
        decay=3200,
        peak_weight=0.5,
        paired=True,
        mixture="repeats",
    ),
    Stage(
        "ranks",
        size=168,
        steps=3400,
        images=12000,
        first=500,
        growth=900,
        batch_size=24,
        learning_rate=8e-4,
        warmup=40,
        decay=3200,
        rank_weight=1.0,
        paired=True,
        mixture="repeats",
        kept_share=0.5,
    ),
    Stage(
        "again",
        size=168,
        steps=1600,
        images=12000,
        first=12000,
        growth=1,
        batch_size=24,
        learning_rate=6e-4,
        warmup=20,
        decay=1500,
        rank_weight=1.0,
        paired=True,
        mixture="repeats",
        kept_share=0.5,
    ),
    Stage(
        "damaged",
        size=168,
        steps=2400,
        images=12000,
        first=12000,
        growth=1,
        batch_size=24,
        learning_rate=8e-4,
        warmup=40,
        decay=2200,
        rank_weight=1.0,
        paired=True,
        mixture="damaged",
        kept_share=0.5,
    ),
    Stage(
        "branches",
        size=168,
        steps=1400,
        images=12000,
        first=12000,
        growth=1,
        batch_size=24,
        learning_rate=8e-4,
        warmup=40,
        decay=400,
        rank_weight=1.0,
        paired=True,
        mixture="damaged",
        kept_share=0.5,
        branches=2,
    ),
    Stage(
        "calm",
        size=168,
        steps=1600,
        images=18000,
        first=18000,
        growth=1,
        batch_size=24,
        learning_rate=4e-4,
        warmup=20,
        decay=1580,
        rank_weight=1.0,
        paired=True,
        mixture="damaged",
        kept_share=0.5,
        branches=2,
        one_direction=True,
    ),
    Stage(
        "odd",
        size=168,
        steps=700,
        images=12000,
        first=12000,
        growth=1,
        batch_size=32,
        learning_rate=8e-4,
        warmup=20,
        decay=0,
        rank_weight=1.0,
        paired=True,
        mixture="built",
        branches=2,
        meet_every=50,
        odd_ones=16,
        odd_growth=600,
        piece=12,
    ),
    Stage(
        "built",
        size=168,
        steps=2600,
        images=26000,
        first=26000,
        growth=1,
        batch_size=14,
        learning_rate=8e-4,
        warmup=20,
        decay=2500,
        rank_weight=1.0,
        paired=True,
        mixture="built",
        kept_share=0.5,
        continues=True,
        branches=2,
        meet_every=50,
        odd_ones=5,
    ),
)


def main() -> None:
    """Parse the arguments, run or resume the shipped recipe, and measure what came out of it."""
    parser = argparse.ArgumentParser(prog="python -m moeclip_hf.demo.pretraining", description=__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for samples, checkpoint, log, figures and tiny_clip/"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default a GPU if there is one)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples (default 1)")
    parser.add_argument(
        "--float32", action="store_true", help="no bfloat16 autocast (which pays on CPUs with AMX or AVX512-BF16)"
    )
    arguments = parser.parse_args()
    for name in ("threads", "workers"):
        if (number := getattr(arguments, name)) < 1:
            parser.error(f"--{name} is {number}, but must be 1 or more.")
    try:
        device = find_device(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(arguments.threads)
    folder = pretrain(
        Recipe(STAGES),
        arguments.output,
        workers=arguments.workers,
        device=device,
        bfloat16=not arguments.float32,
    )
    clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    figures = {**measure_procedural(clip, tokenizer), "unfamiliar": measure_unfamiliar(clip, tokenizer)}
    (arguments.output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
