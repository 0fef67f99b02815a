"""Small callbacks of the trainer: the epoch that the augmentation sees, and a short line at the progress bar."""

from collections.abc import Callable

from transformers import ProgressCallback, TrainerCallback


class EpochCallback(TrainerCallback):
    """Tells the training data which epoch it is.

    Accelerate's loaders tell the sampler, but under several processes not the data set.

    Args:
        set_epoch (`Callable[[int], None]`): Called with the epoch, counted from 0.
    """

    def __init__(self, set_epoch: Callable[[int], None]):
        self._set_epoch = set_epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Sets the epoch before the first batch is drawn."""
        self._set_epoch(int(state.epoch or 0))

    def on_evaluate(self, args, state, control, **kwargs):
        """Sets the epoch again: the evaluation's loader starts at 0, and its data set may be the training one."""
        self._set_epoch(int(state.epoch or 0))


class ResumeCallback(TrainerCallback):
    """Restores what transformers starts anew when it continues a run, right after it has done so.

    Args:
        restore (`Callable[[], None]`): Called once, before the first step.
    """

    def __init__(self, restore: Callable[[], None]):
        self._restore = restore

    def on_train_begin(self, args, state, control, **kwargs):
        """Restores it."""
        self._restore()


class ShortProgressCallback(ProgressCallback):
    """A progress bar whose log lines leave out the values of single layers; those are for `report_to`."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Writes a line above the bar."""
        short = {name: value for name, value in (logs or {}).items() if "/" not in name}
        super().on_log(args, state, control, logs=short, **kwargs)

    def stop(self) -> None:
        """Closes the bars of a run that failed, so that its error begins a line of its own."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()
        self.prediction_bar = self.training_bar = None
