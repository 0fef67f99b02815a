"""The pretraining loop: stages of growing pools, exact resume, averaged weights."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPModel

from . import attention
from .batches import make_batch
from .directions import teach_one_direction, text_parameters
from .objective import Batch, RegionTextObjective
from .shards import SamplePool
from .stages import PATCH_SIZE, Recipe, Stage
from .tokenizer import CONTEXT_LENGTH, shipped_tokenizer


def build_clip(recipe: Recipe, vocab_size: int, size: int) -> CLIPModel:
    """A fresh CLIP of the recipe's sizes; the end token is the last id of the vocabulary."""
    config = CLIPConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": recipe.text_hidden_size,
            "intermediate_size": 4 * recipe.text_hidden_size,
            "num_hidden_layers": recipe.text_layers,
            "num_attention_heads": recipe.text_hidden_size // 64,
            "max_position_embeddings": CONTEXT_LENGTH,
            "hidden_act": "gelu",
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "pad_token_id": vocab_size - 1,
            "projection_dim": recipe.projection_dim,
        },
        vision_config={
            "hidden_size": recipe.hidden_size,
            "intermediate_size": 4 * recipe.hidden_size,
            "num_hidden_layers": recipe.num_layers,
            "num_attention_heads": recipe.num_heads,
            "image_size": size,
            "patch_size": PATCH_SIZE,
            "hidden_act": "gelu",
            "projection_dim": recipe.projection_dim,
        },
        projection_dim=recipe.projection_dim,
    )
    torch.manual_seed(recipe.seed)
    return CLIPModel._from_config(config, attn_implementation={"vision_config": attention.NAME})


def resize_positions(clip: CLIPModel, size: int) -> None:
    """Change the input size in place: position embeddings are resized once, bicubic with antialias."""
    embeddings = clip.vision_model.embeddings
    grid, target = embeddings.image_size // PATCH_SIZE, size // PATCH_SIZE
    if grid == target:
        return
    table = embeddings.position_embedding.weight.detach()
    patches = table[1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2).float()
    patches = F.interpolate(patches, (target, target), mode="bicubic", antialias=True, align_corners=False)
    table = torch.cat([table[:1], patches.permute(0, 2, 3, 1).reshape(target * target, -1)])
    embeddings.position_embedding = torch.nn.Embedding.from_pretrained(table, freeze=False)
    embeddings.image_size, embeddings.num_patches = size, target * target
    embeddings.num_positions = target * target + 1
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=table.device)[None]
    clip.config.vision_config.image_size = size


def _optimizers(model: RegionTextObjective, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for everything else.

    On the same batches Muon was about 1.5 times as far as AdamW after 150 steps.
    """
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and ".layers." in name else others).append(parameter)
    return [
        torch.optim.Muon(
            [{"params": matrices, "rate_share": 1.0}],
            lr=0.0,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW([{"params": others, "rate_share": 0.4}], lr=0.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save_clip(weights: dict[str, torch.Tensor], clip: CLIPModel, folder: Path) -> None:
    """Write CLIP as float16 safetensors with these weights."""
    config = CLIPConfig.from_dict(clip.config.to_dict())
    small = CLIPModel(config)
    small.load_state_dict(
        {name.removeprefix("clip."): value for name, value in weights.items() if name.startswith("clip.")}
    )
    small.half().save_pretrained(folder)


class _Run:
    """A recipe under way: the model, its averaged weights, optimizers, branches that wait for their turn, how far it came."""

    def __init__(self, recipe: Recipe, output: Path, device: torch.device):
        output.mkdir(parents=True, exist_ok=True)
        self.recipe, self.output, self.device = recipe, output, device
        self.tokenizer = shipped_tokenizer()
        self.tokenizer.save_pretrained(output / "tiny_clip")
        (output / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
        self.stage, self.step = 0, 0
        clip = build_clip(recipe, len(self.tokenizer), recipe.stages[0].size)
        self.model = RegionTextObjective(clip, recipe.levels).to(device)
        self.first, self.average = self._copy_of_weights(), self._copy_of_weights()
        self.kept = self.first
        self.waiting: list[dict] = []  # the stage's other branches, in the order of their turns
        self.optimizers = _optimizers(self.model, recipe)
        if (output / "checkpoint.pt").exists():
            self._resume(torch.load(output / "checkpoint.pt", map_location=device, weights_only=True))

    def _copy_of_weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _resume(self, saved: dict) -> None:
        self.stage, self.step = saved["stage"], saved["step"]
        resize_positions(self.model.clip, self.recipe.stages[self.stage].size)
        self.model.load_state_dict(saved["model"])
        self.first, self.average, self.waiting = saved["first"], saved["average"], saved["waiting"]
        self.kept = saved["kept"]
        self.optimizers = self._new_optimizers()
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        log = self.output / "log.jsonl"
        done = sum(stage.total_steps for stage in self.recipe.stages[: self.stage]) + self.step
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:done]))

    def begin_next_stage(self, progress: bool) -> None:
        """Go on from the averaged weights, at the new stage's input size."""
        self.stage, self.step = self.stage + 1, 0
        if self.recipe.stages[self.stage].one_direction:
            self.model.load_state_dict(self.average)
            teach_one_direction(self.model, self.tokenizer, progress=progress)
            self.average = self._copy_of_weights()
        self._begin_from(self.average)
        self.first = self._copy_of_weights()
        if not self.recipe.stages[self.stage].continues:
            self.kept = self.first

    def _begin_from(self, weights: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights)
        resize_positions(self.model.clip, self.recipe.stages[self.stage].size)
        self.average = self._copy_of_weights()
        self.optimizers = self._new_optimizers()

    def _new_optimizers(self) -> list[torch.optim.Optimizer]:
        taught = any(stage.one_direction for stage in self.recipe.stages[: self.stage + 1])
        for parameter in text_parameters(self.model):
            parameter.requires_grad_(not taught)
        return _optimizers(self.model, self.recipe)

    def _end_turn(self) -> None:
        """Set the branch aside and give the next one its turn; once all have had theirs they meet, at last for good."""
        stage = self.recipe.stages[self.stage]
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        self.waiting.append({"model": self._copy_of_weights(), "average": self.average, "optimizers": optimizers})
        if self.step == stage.total_steps:
            self.average = _mean([branch["average"] for branch in self.waiting])
            _update_average(self.average, self.kept, 1 - stage.kept_share)
            self.waiting = []
            return
        if self.step % (stage.branches * stage.turn) == 0:
            met = _mean([branch["model"] for branch in self.waiting])
            self.waiting = [{**branch, "model": met} for branch in self.waiting]
        if self.step < stage.branches * stage.turn:
            self._begin_from(self.first)
            return
        branch = self.waiting.pop(0)
        self._begin_from(branch["model"])
        self.average = branch["average"]
        for optimizer, state in zip(self.optimizers, branch["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def open_pool(self, workers: int) -> SamplePool:
        """The samples of the current stage."""
        stage = self.recipe.stages[self.stage]
        return SamplePool(
            self.output / f"samples-{stage.name}",
            seed=self.recipe.seed + self.stage,
            size=stage.size,
            patch_size=PATCH_SIZE,
            total=stage.images,
            first=stage.first,
            growth=stage.growth,
            shard_size=stage.shard_size,
            paired=stage.paired,
            mixture=stage.mixture,
            workers=workers,
        )

    def advance(self, pool: SamplePool, bfloat16: bool) -> dict[str, float]:
        """One step; its loss terms go to the log."""
        stage = self.recipe.stages[self.stage]
        branch, step = stage.place(self.step)
        batch = make_batch(pool, self.tokenizer, stage, step, self.recipe.seed + branch).to(self.device)
        began = time.perf_counter()
        terms = _train_step(self.model, self.optimizers, batch, stage, step, bfloat16)
        _update_average(self.average, self.model.state_dict(), min(self.recipe.average, (step + 1) / (step + 10)))
        entry = {"stage": stage.name, "step": self.step, **terms, "seconds": time.perf_counter() - began}
        with open(self.output / "log.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")
        self.step += 1
        if self.step % stage.turn == 0:
            self._end_turn()
        return terms

    def save(self) -> None:
        """Write the checkpoint, and the averaged weights as a CLIP that can be used."""
        state = {
            "stage": self.stage,
            "step": self.step,
            "model": self.model.state_dict(),
            "first": self.first,
            "kept": self.kept,
            "average": self.average,
            "waiting": self.waiting,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        temporary = self.output / "checkpoint.partial"
        torch.save(state, temporary)
        os.replace(temporary, self.output / "checkpoint.pt")
        save_clip(self.average, self.model.clip, self.output / "tiny_clip")


def pretrain(
    recipe: Recipe,
    output: Path,
    *,
    workers: int = 1,
    device: str | torch.device = "cpu",
    bfloat16: bool = True,
    checkpoint_every: int = 100,
    stop_after: int | None = None,
    progress: bool = True,
) -> Path:
    """Run or resume the recipe in `output`; returns the folder with the CLIP, its averaged weights and its tokenizer.

    `output/checkpoint.pt` is written every `checkpoint_every` steps and continued from if it is there, with the same
    losses as an uninterrupted run. `output/log.jsonl` receives the loss terms. `stop_after` ends the run once the
    recipe has come that many steps in all; another call goes on from there, on another `device` if wanted.
    """
    run = _Run(recipe, output, torch.device(device))
    steps = [stage.total_steps for stage in recipe.stages]
    while True:
        before = sum(steps[: run.stage])
        last = steps[run.stage] if stop_after is None else min(steps[run.stage], stop_after - before)
        pool = run.open_pool(workers)
        try:
            bar = tqdm(range(run.step, last), initial=run.step, total=steps[run.stage], disable=not progress)
            for _ in bar:
                terms = run.advance(pool, bfloat16)
                bar.set_postfix(state=f"{terms['state']:.3f}", loss=f"{terms['loss']:.3f}")
                if run.step % checkpoint_every == 0 or run.step == last:
                    run.save()
        finally:
            pool.close()
        if last < steps[run.stage] or run.stage + 1 == len(steps):
            return output / "tiny_clip"
        run.begin_next_stage(progress)


def _train_step(
    model: RegionTextObjective,
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    stage: Stage,
    step: int,
    bfloat16: bool,
) -> dict[str, float]:
    with torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=bfloat16):
        terms = model(batch, stage.peak_weight, stage.rank_weight)
    model.zero_grad(set_to_none=True)
    terms["loss"].backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(step) * group["rate_share"]
        optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


@torch.no_grad()
def _update_average(average: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], keep: float) -> None:
    for name, value in weights.items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


def _mean(weights: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A copy of the first, and the mean of all where there are several."""
    mean = {name: value.clone() for name, value in weights[0].items()}
    for number, other in enumerate(weights[1:], start=1):
        _update_average(mean, other, number / (number + 1))
    return mean
