"""The recipe of a pretraining: stages, one after the other, and what all of them share."""

from dataclasses import dataclass


PATCH_SIZE = 8


@dataclass(frozen=True)
class Stage:
    """One part of the recipe: its steps draw from a pool that grows from `first` to `images` over `growth` steps.

    The rate warms up over `warmup` steps, stays, and falls linearly to zero over the last `decay` steps. `peak_weight`
    is that of the loss on each picture's highest patches, `rank_weight` that of the loss on which of two pictures
    stands higher. `paired` fills half of the batch with the sound twins of the other half; ranks need it. `mixture`
    names what is drawn, as [`find_mixture`] takes it; `odd_ones` more pairs a step show equal parts of which one is off,
    the hardest of them harder and harder over `odd_growth` steps. `kept_share` is that of the weights the stage began
    with in those it ends with, a mean that can be better than either; if it `continues` the stage before, of those that
    one began with. A stage of several `branches` is run that many times from the same weights, each time on other
    batches of its pool, and ends with the mean of them; if they `meet_every` so many steps, all go on from the mean of
    their weights then. `one_direction` begins with the text tower alone, which learns one direction of damage for
    every noun, and from then on stays as it is. `piece` is the side in patches of the square piece that is seen of
    each picture, mostly around something irregular; None shows it whole.
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
    continues: bool = False
    branches: int = 1
    meet_every: int | None = None
    odd_ones: int = 0
    odd_growth: int = 1
    one_direction: bool = False
    piece: int | None = None
    shard_size: int = 500

    def __post_init__(self):
        if self.rank_weight and not self.paired:
            raise ValueError(
                f"stage {self.name!r}: `rank_weight` ({self.rank_weight}) needs pairs: set `paired=True`."
            )
        if self.odd_ones and not self.paired:
            raise ValueError(f"stage {self.name!r}: `odd_ones` ({self.odd_ones}) come in pairs: set `paired=True`.")
        if self.steps % self.turn:
            raise ValueError(
                f"stage {self.name!r}: `meet_every` ({self.meet_every}) must divide `steps` ({self.steps}), so that all end"
                " together."
            )

    @property
    def turn(self) -> int:
        """Steps that a branch goes before it is the next one's turn."""
        return self.meet_every or self.steps

    @property
    def total_steps(self) -> int:
        """Steps of all branches together."""
        return self.steps * self.branches

    def place(self, step: int) -> tuple[int, int]:
        """Which branch takes this step of all, 0-based, and which of its own steps it is."""
        round_, rest = divmod(step, self.branches * self.turn)
        branch, own = divmod(rest, self.turn)
        return branch, round_ * self.turn + own

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
