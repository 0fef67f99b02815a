"""Training arguments with the paper's recipe as their defaults."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..data.benchmarks import DOMAINS
from .presets import get_preset


@dataclass
class MoECLIPTrainingArguments(TrainingArguments):
    r"""transformers' `TrainingArguments` with the values of the paper, one argument to choose the recipe, and few more.

    Adam with betas (0.5, 0.999), batch 2, 20 epochs, the rate halved at steps 16,000 and 32,000, seed 111. All other
    arguments are those of `TrainingArguments`; what is given explicitly counts more than the preset.

    Args:
        preset (`str`, *optional*, defaults to `"paper"`):
            `"paper"` or `"released"` (the authors' code as it runs): the learning rate (5e-4 or 5e-5), clipping of the
            global gradient norm (1.0 or none), the auxiliary losses (as in the model's configuration, or off) and the
            experts' dropout (as in the model's configuration, or 0).
        learning_rate (`float`, *optional*): The initial rate. `None`: the preset's.
        max_grad_norm (`float`, *optional*): Where the global gradient norm is clipped, 0 for never. `None`: the
            preset's.
        router_aux_loss_coef (`float`, *optional*): Weight of the balance loss, set in the model's configuration when
            the trainer is made. `None`: the preset's.
        etf_loss_coef (`float`, *optional*): Likewise for the ETF loss.
        lora_dropout (`float`, *optional*): Likewise for the dropout on the experts' input.
        lr_milestones (`list[int]`, *optional*, defaults to `[16000, 32000]`):
            Optimizer steps at which the rate is multiplied by `lr_gamma`. They belong to
            `lr_scheduler_type="constant"`, the default; another scheduler takes their place.
        lr_gamma (`float`, *optional*, defaults to 0.5): The factor at each milestone.
        eval_smoothing (`str`, *optional*, defaults to `"industrial"`):
            `"industrial"` or `"medical"`: blur and score fusion of the evaluation protocol.
        train_data (`str`, *optional*):
            Where the training data come from: a path, a benchmark's key or a Hub id. Only written down, in the
            `training.json` beside the model, as are the two that follow.
        train_benchmark (`str`, *optional*): The benchmark's key, if the training data are one of the paper's.
        recipe (`str`, *optional*): Name of the recipe file that the values come from.

    Raises:
        ValueError: If a value is out of its range.

    Example:
    ```python
    >>> from moeclip_hf import MoECLIPTrainingArguments

    >>> args = MoECLIPTrainingArguments("outputs/visa", preset="released", num_train_epochs=5)
    >>> args.learning_rate
    5e-05
    ```
    """

    preset: str = field(default="paper", metadata={"help": "Training recipe: 'paper' or 'released'."})
    learning_rate: float | None = field(default=None, metadata={"help": "Initial learning rate; None: the preset's."})
    max_grad_norm: float | None = field(
        default=None, metadata={"help": "Maximum gradient norm, 0 for no clipping; None: the preset's."}
    )
    router_aux_loss_coef: float | None = field(
        default=None, metadata={"help": "Weight of the balance loss; None: the preset's."}
    )
    etf_loss_coef: float | None = field(default=None, metadata={"help": "Weight of the ETF loss; None: the preset's."})
    lora_dropout: float | None = field(
        default=None, metadata={"help": "Dropout on the experts' input; None: the preset's."}
    )
    lr_milestones: list[int] = field(
        default_factory=lambda: [16000, 32000],
        metadata={"help": "Optimizer steps at which the rate is multiplied by lr_gamma."},
    )
    lr_gamma: float = field(default=0.5, metadata={"help": "Factor on the learning rate at each milestone."})
    eval_smoothing: str = field(
        default="industrial", metadata={"help": "Domain of the evaluation protocol: 'industrial' or 'medical'."}
    )

    train_data: str | None = field(default=None, metadata={"help": "Where the training data come from, to record it."})
    train_benchmark: str | None = field(default=None, metadata={"help": "Key of the benchmark that they are."})
    recipe: str | None = field(default=None, metadata={"help": "Name of the recipe, to record it."})

    per_device_train_batch_size: int = field(default=2, metadata={"help": "The batch size per device for training."})
    num_train_epochs: float = field(default=20.0, metadata={"help": "Total number of training epochs to perform."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "The scheduler type to use."})
    # With `weight_decay` 0, its default, AdamW is Adam.
    optim: str = field(default="adamw_torch", metadata={"help": "The optimizer to use."})
    adam_beta1: float = field(default=0.5, metadata={"help": "Beta1 for Adam."})
    seed: int = field(default=111, metadata={"help": "Seed of dropout, of the order of samples and of routing ties."})
    logging_steps: float = field(default=50, metadata={"help": "Log every X updates steps."})
    # A loss that is not finite is shown as such: it does not become finite again.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Leave nan and inf out of the logged loss."})
    save_strategy: str = field(default="epoch", metadata={"help": "The checkpoint save strategy to use."})
    # A repository is written whole, with its card, so not from within a training.
    hub_strategy: HubStrategy | str = field(default="end", metadata={"help": "When to push: only 'end' is possible."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Whether columns that the model does not read are dropped from a dataset."}
    )
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels", "mask_labels"], metadata={"help": "The inputs that are labels."}
    )
    # Every trained parameter takes part in every step (the experts are slices of one tensor), and no buffer changes.
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Whether DistributedDataParallel looks for parameters without a gradient."}
    )
    ddp_broadcast_buffers: bool | None = field(
        default=False, metadata={"help": "Whether DistributedDataParallel sends buffers with every step."}
    )

    def __post_init__(self):
        preset = get_preset(self.preset)
        for name in ("learning_rate", "max_grad_norm", "router_aux_loss_coef", "etf_loss_coef", "lora_dropout"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(preset, name))
        self._check_ranges()
        if self.data_seed is None:
            # Otherwise Accelerate takes the state in which the global generator happens to be for the order's seed.
            self.data_seed = self.seed
        super().__post_init__()
        # torch's DataParallel, transformers' choice for several GPUs in one process, would cut the prompts' table
        # along with the batch. Several GPUs are used by several processes, under `accelerate launch`.
        self._n_gpu = min(self._n_gpu, 1)

    def _check_ranges(self) -> None:
        """Checks the values that transformers does not know, or does not check.

        Raises:
            ValueError: If a value is out of its range.
        """
        for name in ("learning_rate", "lr_gamma", "logging_steps", "save_steps"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"`{name}` ({getattr(self, name)}) must be a finite number above 0.")
        for name in ("max_grad_norm", "router_aux_loss_coef", "etf_loss_coef", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"`{name}` ({value}) must be a finite number, 0 or more.")
        if self.lora_dropout is not None and not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`lora_dropout` ({self.lora_dropout}) must be at least 0 and below 1.")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` ({getattr(self, name)}) must be at least 1.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` ({self.seed}) must be at least 0 and below 2**32.")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"`max_steps` ({self.max_steps}) must be at least 1, or -1 for `num_train_epochs`.")
        if self.max_steps == -1 and not self.num_train_epochs > 0:
            raise ValueError(f"`num_train_epochs` ({self.num_train_epochs}) must be above 0.")
        if list(self.lr_milestones) != sorted(self.lr_milestones) or any(step < 1 for step in self.lr_milestones):
            raise ValueError(f"`lr_milestones` ({self.lr_milestones}) must be ascending steps, 1 or more.")
        if self.push_to_hub and HubStrategy(self.hub_strategy) != HubStrategy.END:
            raise ValueError(
                f"`hub_strategy` ({HubStrategy(self.hub_strategy).value}) must be 'end': a checkpoint is no repository that "
                "others can load."
            )
        if self.eval_smoothing not in DOMAINS:
            raise ValueError(f"`eval_smoothing` ({self.eval_smoothing!r}) must be 'industrial' or 'medical'.")
