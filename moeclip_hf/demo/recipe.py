"""The one place where the demo's numbers stand: how much is drawn, and how the tiny model is trained on it."""

from dataclasses import dataclass, field

from .benchmark.writing import DEFAULT_COUNTS


@dataclass(frozen=True)
class DemoRecipe:
    """The `paper` preset, adapted to a model some hundred times smaller and a training of two minutes.

    Args:
        benchmark_seed (`int`, *optional*): Seed of the pictures, the same whatever the seed of the training.
        counts (`dict[str, tuple[int, int]]`, *optional*):
            Flawless and defective pictures per category of each half.
        num_patterns (`int`, *optional*): Pictures of other patterns that are trained on besides.
        image_size (`int`, *optional*): The model's input size in pixels.
        num_train_epochs (`float`, *optional*): Passes over the training half.
        batch_size (`int`, *optional*): Pictures per training step.
        learning_rate (`float`, *optional*): The highest rate.
        warmup_steps (`int`, *optional*): Steps in which the rate rises to it; then it falls linearly to zero.
    """

    benchmark_seed: int = 0
    counts: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(DEFAULT_COUNTS))
    num_patterns: int = 1000
    image_size: int = 168
    num_train_epochs: float = 1.0
    batch_size: int = 4
    learning_rate: float = 1e-3
    warmup_steps: int = 20
