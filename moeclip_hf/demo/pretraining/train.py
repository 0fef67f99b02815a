"""The pretraining loop: stages of growing pools, exact resume, averaged weights."""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from . import attention
from .directions import teach_one_direction, text_parameters
from .measure import normalise
from .objective import IRREGULAR_SHARE, Batch, RegionTextObjective
from .shards import SamplePool
from .texts import arbitrary_noun, describe_noun, state_texts
from .tokenizer import CONTEXT_LENGTH, shipped_tokenizer


PATCH_SIZE = 8


@dataclass(frozen=True)
class Stage:
    """One part of the recipe: its steps draw from a pool that grows from `first` to `images` over `growth` steps.

    The rate warms up over `warmup` steps, stays, and falls linearly to zero over the last `decay` steps. `peak_weight`
    is that of the loss on each picture's highest patches, `rank_weight` that of the loss on which of two pictures
    stands higher. `paired` fills half of the batch with the sound twins of the other half; ranks need it. `mixture`
    names what is drawn, one of `MIXTURES`. `kept_share` is that of the weights the stage began with in those it ends
    with, a mean that can be better than either. A stage of several `branches` is run that many times from the same
    weights, each time on other batches of its pool, and ends with the mean of them. `one_direction` begins with the text
    tower alone, which learns one direction of damage for every noun, and then leaves it as it is. `piece` is the side in
    patches of the square piece that is seen of each picture, mostly around something irregular; None shows it whole.
    """

    name: str
    size: int
    steps: int
    images: int
    first: int
    growth: int
    batch_size: int
    learning_rate: float
    warmup: int
    decay: int
    peak_weight: float = 0.0
    rank_weight: float = 0.0
    paired: bool = False
    mixture: str = "broad"
    kept_share: float = 0.0
    branches: int = 1
    one_direction: bool = False
    piece: int | None = None
    shard_size: int = 500

    def __post_init__(self):
        if self.rank_weight and not self.paired:
            raise ValueError(
                f"stage {self.name!r}: `rank_weight` ({self.rank_weight}) needs pairs: set `paired=True`."
            )

    @property
    def total_steps(self) -> int:
        """Steps of all branches together."""
        return self.steps * self.branches

    def rate(self, step: int) -> float:
        """Learning rate of a branch's step, 0-based."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, (self.steps - step) / max(1, self.decay))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the machine's arithmetic."""

    stages: tuple[Stage, ...]
    seed: int = 2603
    hidden_size: int = 192
    num_layers: int = 6
    num_heads: int = 3
    text_hidden_size: int = 128
    text_layers: int = 3
    projection_dim: int = 128
    weight_decay: float = 0.05
    average: float = 0.995
    levels: tuple[int, ...] = (1, 2, 4, 5)

    def __post_init__(self):
        if self.stages and self.stages[0].one_direction:
            raise ValueError(
                f"`stages`: {self.stages[0].name!r} is the first and has `one_direction=True`, but what one direction is"
                " taken from must be learnt in a stage before it."
            )


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


def _turn(array: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    array = np.rot90(array, turns)
    return array[:, ::-1] if flip else array


def _vary_colours(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Channel order, grey, negative, brightness and contrast, on float pictures (n, H, W, 3) in [0, 1], all alike."""
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.1:
        image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.25:
        image = 1 - image
    if rng.random() < 0.5:
        image = np.clip((image - 0.5) * rng.uniform(0.5, 1.4) + 0.5 + rng.uniform(-0.15, 0.15), 0, 1)
    return image


def _choose_piece(
    rng: np.random.Generator, irregular: np.ndarray, foreground: np.ndarray, side: int
) -> tuple[slice, slice]:
    """Rows and columns, in patches, of a square piece: in nine of ten cases it holds an irregular patch, if there is one.

    Takes the shares of the patches (grid, grid) in 0..255.
    """
    wanted = np.argwhere(irregular >= IRREGULAR_SHARE * 255)
    if not len(wanted) or rng.random() < 0.1:
        wanted = np.argwhere(foreground > 127)
    grid = len(irregular)
    middle = wanted[rng.integers(len(wanted))] if len(wanted) else np.array([grid // 2, grid // 2])
    row, column = np.clip(middle - rng.integers(1, side - 1, size=2), 0, grid - side)
    return slice(row, row + side), slice(column, column + side)


def make_batch(pool: SamplePool, tokenizer: CLIPTokenizer, stage: Stage, step: int, seed: int) -> Batch:
    """The batch of one step: a pure function of its arguments."""
    rng = np.random.default_rng((seed, stage.size, step, *((1,) if stage.paired else ())))
    count = stage.batch_size // 2 if stage.paired else stage.batch_size
    samples = pool.get(rng.integers(pool.available(step), size=count))
    images, irregular, foreground, twins = [], [], [], []
    normal, abnormal, nouns, places = [], [], [], []
    grid = stage.size // PATCH_SIZE
    numbers = np.arange(grid * grid).reshape(grid, grid)
    for row in range(count):
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        views = [samples[name][row] for name in ("images", "twins") if name in samples]
        views = _vary_colours(rng, np.stack([_turn(view, turns, flip) for view in views]).astype(np.float32) / 255)
        shares = [_turn(samples[name][row], turns, flip) for name in ("irregular", "foreground")]
        if stage.piece is not None:
            piece = _choose_piece(rng, *shares, stage.piece)
            shares = [share[piece] for share in shares]
            views = views[:, *(slice(part.start * PATCH_SIZE, part.stop * PATCH_SIZE) for part in piece)]
            places.append(numbers[piece].reshape(-1))
        images.append(views[0])
        twins.extend(views[1:])
        irregular.append(shares[0].reshape(-1) / np.float32(255))
        foreground.append(shares[1].reshape(-1) / np.float32(255))
        own = rng.random() < 0.6
        noun = str(samples["nouns"][row])
        texts = state_texts(rng, describe_noun(rng, noun) if own else arbitrary_noun(rng))
        normal.append(texts[0])
        abnormal.append(texts[1])
        nouns.append(int(hashlib.sha256(noun.encode()).hexdigest()[:12], 16) if own else -1)
    encoded = tokenizer(normal + abnormal, padding=True, truncation=True, return_tensors="pt").input_ids
    normal_ids, abnormal_ids = encoded.chunk(2)
    shares, noun_ids = torch.from_numpy(np.stack(irregular)), torch.tensor(nouns)
    none, repeats = torch.zeros_like(shares), 2 if stage.paired else 1
    return Batch(
        normalise(np.stack(images + twins)),
        irregular=torch.cat([shares, none][:repeats]),
        compared=torch.cat([none, shares][:repeats]),
        foreground=torch.from_numpy(np.stack(foreground * repeats)),
        normal_ids=normal_ids,
        abnormal_ids=abnormal_ids,
        noun_ids=noun_ids.repeat(repeats),
        places=torch.from_numpy(np.stack(places * repeats)) if places else None,
    )


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
    """A recipe under way: the model, its averaged weights, the mean of branches that ended, optimizers, how far it came."""

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
        self.branches_mean: dict[str, torch.Tensor] = {}
        self.optimizers = _optimizers(self.model, recipe)
        if (output / "checkpoint.pt").exists():
            self._resume(torch.load(output / "checkpoint.pt", map_location=device, weights_only=True))

    def _copy_of_weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _resume(self, saved: dict) -> None:
        self.stage, self.step = saved["stage"], saved["step"]
        resize_positions(self.model.clip, self.recipe.stages[self.stage].size)
        self.model.load_state_dict(saved["model"])
        self.first, self.average, self.branches_mean = saved["first"], saved["average"], saved["branches_mean"]
        self.optimizers = self._new_optimizers()
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        log = self.output / "log.jsonl"
        done = sum(stage.total_steps for stage in self.recipe.stages[: self.stage]) + self.step
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:done]))

    def begin_next_stage(self, progress: bool) -> None:
        """Go on from the averaged weights, at the new stage's input size."""
        self.stage, self.step, self.branches_mean = self.stage + 1, 0, {}
        if self.recipe.stages[self.stage].one_direction:
            self.model.load_state_dict(self.average)
            teach_one_direction(self.model, self.tokenizer, progress=progress)
            self.average = self._copy_of_weights()
        self._begin_from(self.average)
        self.first = self._copy_of_weights()

    def _begin_from(self, weights: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights)
        resize_positions(self.model.clip, self.recipe.stages[self.stage].size)
        self.average = self._copy_of_weights()
        self.optimizers = self._new_optimizers()

    def _new_optimizers(self) -> list[torch.optim.Optimizer]:
        for parameter in text_parameters(self.model):
            parameter.requires_grad_(not self.recipe.stages[self.stage].one_direction)
        return _optimizers(self.model, self.recipe)

    def _end_branch(self) -> None:
        """Take the mean with the branches before; begin the next one, or end with a share of the stage's first weights."""
        stage = self.recipe.stages[self.stage]
        count = self.step // stage.steps
        if count > 1:
            _update_average(self.average, self.branches_mean, 1 / count)
        if count < stage.branches:
            self.branches_mean = self.average
            self._begin_from(self.first)
        else:
            _update_average(self.average, self.first, 1 - stage.kept_share)

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
        branch, step = divmod(self.step, stage.steps)
        batch = make_batch(pool, self.tokenizer, stage, step, self.recipe.seed + branch).to(self.device)
        began = time.perf_counter()
        terms = _train_step(self.model, self.optimizers, batch, stage, step, bfloat16)
        _update_average(self.average, self.model.state_dict(), min(self.recipe.average, (step + 1) / (step + 10)))
        entry = {"stage": stage.name, "step": self.step, **terms, "seconds": time.perf_counter() - began}
        with open(self.output / "log.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")
        self.step += 1
        if self.step % stage.steps == 0:
            self._end_branch()
        return terms

    def save(self) -> None:
        """Write the checkpoint, and the averaged weights as a CLIP that can be used."""
        state = {
            "stage": self.stage,
            "step": self.step,
            "model": self.model.state_dict(),
            "first": self.first,
            "average": self.average,
            "branches_mean": self.branches_mean,
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
