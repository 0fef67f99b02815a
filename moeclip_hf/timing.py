"""How long the stages of a run take."""

import contextlib
import time
from collections.abc import Iterator


class StageTimer:
    """Adds up the time of stages that alternate.

    Example:
    ```python
    >>> timer = StageTimer()
    >>> with timer("loading"):
    ...     pass
    >>> list(timer.rounded())
    ['loading']
    ```
    """

    def __init__(self):
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Counts the time until the block ends as a stage's.

        Args:
            stage (`str`): The stage's name.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started

    def total(self) -> float:
        """Gives the time since this object was made.

        Returns:
            `float`: Seconds.
        """
        return time.perf_counter() - self._started

    def rounded(self) -> dict[str, float]:
        """Gives the time of each stage.

        Returns:
            `dict[str, float]`: Seconds, to the hundredth, in the order in which the stages first came.
        """
        return {stage: round(seconds, 2) for stage, seconds in self._seconds.items()}
