"""The demo's numbers: how much is drawn, and, from `recipe.json`, how the tiny model is trained on it."""

from dataclasses import dataclass, field

from ..training.recipe_file import Recipe, read_recipe
from . import DEMO_RECIPE
from .benchmark.writing import DEFAULT_COUNTS


TRAINING = read_recipe(DEMO_RECIPE)


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
    num_patterns: int = 900
    image_size: int = TRAINING.values["image_size"]
    num_train_epochs: float = TRAINING.values["num_train_epochs"]
    batch_size: int = TRAINING.values["per_device_train_batch_size"]
    learning_rate: float = TRAINING.values["learning_rate"]
    warmup_steps: int = TRAINING.values["warmup_steps"]

    def get_training(self, **changes) -> Recipe:
        """Gives the recipe of the training.

        Args:
            **changes: Other values of the recipe, such as its seed.

        Returns:
            [`Recipe`]: The recipe.
        """
        numbers = {
            "image_size": self.image_size,
            "num_train_epochs": self.num_train_epochs,
            "per_device_train_batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
        }
        return TRAINING.change({**numbers, **changes})
