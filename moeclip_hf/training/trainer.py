"""The trainer: transformers' own, with what MoECLIP needs around the forward pass, the log and the checkpoints."""

import datetime
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import ProgressCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput, SchedulerType
from transformers.utils import logging

from ..data import collate_anomaly_samples
from ..evaluation import BenchmarkProtocol
from ..hub import CARD_NAME, build_repository, find_results, push_repository, read_results
from ..hub_errors import hub_errors
from ..model_card import create_model_card
from ..processing_moeclip import resize_anomaly_map, smooth_anomaly_logits
from ..provenance import get_commit, get_versions
from ..training_record import write_training_record
from .arguments import MoECLIPTrainingArguments
from .callbacks import EpochCallback, ResumeCallback, ShortProgressCallback
from .checkpoints import TRAINER_STATE, find_last_checkpoint, is_complete, load_adapters, save_adapters
from .monitor import ExpertMonitor
from .schedule import get_step_schedule


logger = logging.get_logger(__name__)

LOSS_TERMS = ("classification_loss", "segmentation_loss", "aux_loss", "etf_loss")


@dataclass
class _Evaluation:
    """A running evaluation: its data set, its metrics so far and how many samples they have seen."""

    dataset: Dataset
    protocol: BenchmarkProtocol
    num_seen: int = 0


class MoECLIPTrainer(Trainer):
    r"""transformers' `Trainer` for [`MoECLIPForAnomalyDetection`]: devices, precision and processes are Accelerate's.

    - The frozen text tower runs once per object name; every step reads its rows from a table.
    - The log has each term of the loss by name (`classification_loss`, `segmentation_loss`, `aux_loss`, `etf_loss`,
      unweighted, averaged like `loss` over the batches since the last line) and for each MoE layer how far its experts
      move (`lora_B_update/layer_5`, in learning rates a step), the similarity of their outputs
      (`expert_similarity/layer_5`) and their load (`expert_load/layer_5/expert_0`).
    - `evaluate` and `eval_strategy` report `eval_loss` and, by the benchmark protocol, `eval_image_auroc`,
      `eval_image_ap`, `eval_pixel_auroc` and `eval_pixel_ap`, NaN where the data do not define them; memory does not
      grow with the number of images. `predict` returns the anomaly logits `(num_images, grid_size, grid_size)` and
      the image scores `(num_images,)`, with the labels.
    - Checkpoints hold the adapters alone. A run that was killed continues from its last complete one as if nothing
      had happened: the order of samples and their augmentation follow from (seed, epoch, index), and no data loader
      draws from the generator that dropout uses.
    - Every saved model and checkpoint has a `training.json` beside it that says what it was trained on.
    - Model weights stay float32; `bf16=True` or `fp16=True` runs under autocast.

    Batches of an accumulated step, and processes, are averaged with equal weights. The segmentation loss is a mean
    over the images of a batch whose mask is known, and the balance loss is not a mean over images at all, so both are
    each process's own, averaged. With a mask on every image, a balance coefficient of 0, dropout 0 and no ties in the
    routers, two processes with half the batch each compute what one process does.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model, its trained parameters in float32.
        args ([`MoECLIPTrainingArguments`]): The recipe; its `preset` and explicit values are set in the model.
        data_collator (`Callable`, *optional*): Defaults to `collate_anomaly_samples`.
        train_dataset (`AnomalyDetectionDataset`, *optional*): Samples with masks, and their object names.
        eval_dataset (`AnomalyDetectionDataset` or `dict`, *optional*): Validation data, never the test data: the best
            checkpoint is chosen on it.
        processing_class ([`MoECLIPProcessor`]): Writes the prompts; saved beside the model.
        **kwargs: Further arguments of `Trainer`.

    Raises:
        ValueError: If an argument does not fit.

    Example:
    ```python
    >>> from moeclip_hf import MoECLIPTrainer, MoECLIPTrainingArguments

    >>> args = MoECLIPTrainingArguments("outputs/visa", num_train_epochs=5)
    >>> trainer = MoECLIPTrainer(model, args, train_dataset=train_dataset, processing_class=processor)
    >>> trainer.train()
    >>> trainer.save_model("outputs/visa/model")
    ```
    """

    # `compute_loss` returns the mean of one batch, which transformers then divides by the batches of a step.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: nn.Module | None = None,
        args: MoECLIPTrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: Any = None,
        **kwargs,
    ):
        args = MoECLIPTrainingArguments() if args is None else args
        if not isinstance(args, MoECLIPTrainingArguments):
            raise ValueError(f"`args` ({type(args).__name__}) must be MoECLIPTrainingArguments.")
        if processing_class is None:
            raise ValueError("`processing_class` (None) must be a MoECLIPProcessor: it writes the prompts.")
        for name, dataset in _name_datasets(train_dataset, eval_dataset):
            _check_dataset(name, dataset)
        if model is not None:
            prepare_model(model, args)
        # Of each object name the prompts' frozen features, (num_prompts, text_hidden); of each data set their table.
        self._prompt_embeds: dict[str, torch.Tensor] = {}
        self._prompt_tables: dict[tuple[str, ...], torch.Tensor] = {}
        self._prompt_state: torch.Tensor | None = None
        self._loss_sums: dict[str, torch.Tensor] = {}
        self._num_batches = 0
        self._evaluation: _Evaluation | None = None
        self._resumed_checkpoint: str | None = None
        super().__init__(
            model=model,
            args=args,
            data_collator=collate_anomaly_samples if data_collator is None else data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        if eval_dataset is not None:
            # a grid too small for the kernel fails now, not after the first epoch
            self._smooth(torch.zeros(1, self.model.config.grid_size, self.model.config.grid_size))
        # transformers looks for `**kwargs` in `forward` and would count tokens for a loss that has none.
        self.model_accepts_loss_kwargs = False
        # transformers writes its cache switch into every model's configuration; ours knows no such key.
        vars(self.model.config).pop("use_cache", None)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "FSDP and DeepSpeed are not supported: launch several processes, each with the whole model."
            )
        self.monitor = ExpertMonitor(lambda: self.model.moe_lora_layers())
        self.add_callback(self.monitor)
        self.add_callback(EpochCallback(self._set_epoch))
        self.add_callback(ResumeCallback(self._load_log_window))
        if self.pop_callback(ProgressCallback):
            self.add_callback(ShortProgressCallback)

    def call_model_init(self, trial=None):
        """Builds the model by `model_init` and prepares it.

        Args:
            trial (*optional*): A trial of a hyperparameter search.

        Returns:
            [`MoECLIPForAnomalyDetection`]: The model.
        """
        model = super().call_model_init(trial)
        prepare_model(model, self.args)
        self._prompt_embeds, self._prompt_tables = {}, {}
        return model

    # ---- training ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains the model.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                A `checkpoint-N` folder to continue from, True for the last complete one in `args.output_dir`. Its
                files are read as plain tensors (`weights_only=True`), still: name only folders that you trust.
            **kwargs: Further arguments of `Trainer.train`.

        Returns:
            `TrainOutput`: Number of steps, mean loss and the run's figures.

        Raises:
            ValueError: If there is no (complete) checkpoint to continue from, or no data to train on.
        """
        if self.train_dataset is None:
            raise ValueError("`train_dataset` (None) must be an AnomalyDetectionDataset.")
        self._loss_sums, self._num_batches = {}, 0
        self._resumed_checkpoint = self._find_checkpoint(resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint=self._resumed_checkpoint, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, (ExpertMonitor, ShortProgressCallback)):
                    callback.stop()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Computes the loss of one batch.

        Args:
            model (`nn.Module`): The model, wrapped for the run.
            inputs (`dict`): `pixel_values`, `labels`, `mask_labels`, and `object_ids`, indices into the object names
                of the data set that the batch is from.
            return_outputs (`bool`, *optional*): Whether to return the model's outputs too.
            num_items_in_batch (*optional*): Not used: the terms are means over images and pixels.

        Returns:
            `torch.Tensor` or `tuple`: The loss, and the outputs if asked for.
        """
        dataset = self.train_dataset if model.training else self._evaluation.dataset
        table = self._get_prompt_table(dataset)
        rows, object_ids = inputs["object_ids"].unique(return_inverse=True)
        others = {name: value for name, value in inputs.items() if name != "object_ids"}
        outputs = model(**others, object_ids=object_ids, prompt_embeds=table[rows], prompt_state=self._prompt_state)
        if model.training:
            self._record_losses(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Creates the schedule: `lr_milestones` and `lr_gamma` unless another `lr_scheduler_type` was chosen.

        Args:
            num_training_steps (`int`): Steps of the whole run.
            optimizer (`torch.optim.Optimizer`, *optional*): Defaults to the trainer's.

        Returns:
            `torch.optim.lr_scheduler.LRScheduler`: The schedule.
        """
        if self.lr_scheduler is None and self.args.lr_scheduler_type == SchedulerType.CONSTANT:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = get_step_schedule(optimizer, self.args.lr_milestones, self.args.lr_gamma)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs values, a training step's with the terms of its loss and with what its experts do.

        Args:
            logs (`dict[str, float]`): The values.
            start_time (`float`, *optional*): When the training began.
        """
        if "loss" in logs:
            logs.update(self._collect_training_values())
        super().log(logs, start_time)

    def _record_losses(self, outputs) -> None:
        for name in LOSS_TERMS:
            term = outputs[name] if name in outputs else None
            if term is not None:
                self._loss_sums[name] = self._loss_sums.get(name, 0) + term.detach().float()
        self._num_batches += 1

    def _collect_training_values(self) -> dict[str, float]:
        values = {name: total / self._num_batches for name, total in self._loss_sums.items()}
        values.update(self.monitor.collect())
        self._loss_sums, self._num_batches = {}, 0
        if not values:
            return {}
        means = self.accelerator.reduce(torch.stack(list(values.values())), reduction="mean")
        return dict(zip(values, means.tolist(), strict=True))

    # ---- data ----

    def _get_prompt_table(self, dataset: Dataset) -> torch.Tensor:
        """The frozen prompt features of a data set's objects, `(num_objects, num_prompts, text_hidden)`."""
        names = tuple(dataset.object_names)
        if names not in self._prompt_tables:
            for name in names:
                if name not in self._prompt_embeds:
                    self._prompt_embeds[name] = self._encode_prompts(name)
            self._prompt_tables[names] = torch.stack([self._prompt_embeds[name] for name in names])
        return self._prompt_tables[names]

    def _encode_prompts(self, name: str) -> torch.Tensor:
        # One object at a time: a row then does not depend on the others, whose prompts may be longer.
        prompts = self.processing_class(object_names=[name], return_tensors="pt").to(self.args.device)
        self._prompt_state = prompts["prompt_state"]
        return self.model.get_prompt_embeds(prompts["input_ids"], prompts["attention_mask"]).detach()[0]

    def _get_dataloader(self, *args, **kwargs) -> DataLoader:
        loader = super()._get_dataloader(*args, **kwargs)
        # An iterator draws its workers' base seed: from here, not from the global generator that dropout uses, or a
        # resumed run, which makes other iterators, would see other dropout.
        loader.base_dataloader.generator = torch.Generator()
        return loader

    def _set_epoch(self, epoch: int) -> None:
        if hasattr(self.train_dataset, "set_epoch"):
            self.train_dataset.set_epoch(epoch)

    # ---- evaluation ----

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Evaluates the model by the benchmark protocol, at its input size.

        Args:
            eval_dataset (`AnomalyDetectionDataset` or `dict`, *optional*): Defaults to the trainer's.
            ignore_keys (*optional*): As in `Trainer`.
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`): Put before every metric's name.

        Returns:
            `dict[str, float]`: `eval_loss`, `eval_image_auroc`, `eval_image_ap`, `eval_pixel_auroc`, `eval_pixel_ap`
            in [0, 1], NaN where undefined, and the run's figures.

        Raises:
            ValueError: If there is no data, or the metric that chooses the best checkpoint is undefined on it.
        """
        for name, dataset in _name_datasets(None, eval_dataset):
            _check_dataset(name, dataset)
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if self.is_in_train and self.args.metric_for_best_model is not None:
            chosen = f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"
            if math.isnan(metrics.get(chosen, 0.0)):
                raise ValueError(
                    f"`metric_for_best_model` ({self.args.metric_for_best_model!r}) is undefined on the validation "
                    "data: give data with normal and anomalous images (and masks), or choose 'loss'."
                )
        return metrics

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Runs over a data set and adds the protocol's metrics to what `Trainer` collects.

        Args:
            dataloader (`DataLoader`): Batches in the data set's order.
            description (`str`): What the run is called in the log.
            prediction_loss_only (`bool`, *optional*): Whether to keep no predictions.
            ignore_keys (*optional*): As in `Trainer`.
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`): Put before every metric's name.

        Returns:
            `EvalLoopOutput`: Predictions and labels if kept, and the metrics.
        """
        self._evaluation = _Evaluation(dataloader.dataset, BenchmarkProtocol(smoothing=self.args.eval_smoothing))
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        results = self._evaluation.protocol.compute()
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in results["mean"].items()})
        for name, reason in results["meta"]["reasons"]["mean"].items():
            logger.warning(f"{metric_key_prefix}_{name} is {reason}.")
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None, torch.Tensor | None]:
        """Evaluates one batch.

        Args:
            model (`nn.Module`): The model.
            inputs (`dict`): As in `compute_loss`.
            prediction_loss_only (`bool`): Whether to return the loss alone.
            ignore_keys (*optional*): Not used.

        Returns:
            `tuple`: The loss; anomaly logits `(batch_size, grid_size, grid_size)` and image scores `(batch_size,)`;
            labels `(batch_size,)`.
        """
        inputs = self._prepare_inputs(inputs)
        loss, logits, scores = self._evaluate_new_samples(model, inputs)
        self._update_protocol(inputs, logits, scores)
        return (
            loss,
            None if prediction_loss_only else (logits, scores),
            None if prediction_loss_only else inputs["labels"],
        )

    @torch.no_grad()
    def _evaluate_new_samples(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Evaluates a batch without the repeated samples that fill up the processes' last batches.

        The results of those are zeros, which `gather_for_metrics` drops; so the loss is not biased by them either.
        """
        batch_size, evaluation = len(inputs["labels"]), self._evaluation
        first = evaluation.num_seen + self.args.process_index * batch_size
        num_new = min(max(len(evaluation.dataset) - first, 0), batch_size)
        grid_size = self.model.config.grid_size
        loss = torch.zeros((), device=self.args.device)
        logits = torch.zeros(batch_size, grid_size, grid_size, device=self.args.device)
        scores = torch.zeros(batch_size, device=self.args.device)
        if num_new:
            new = {name: value[:num_new] for name, value in inputs.items()}
            with self.compute_loss_context_manager():
                loss, outputs = self.compute_loss(model, new, return_outputs=True)
            logits[:num_new], scores[:num_new] = outputs.anomaly_logits, outputs.image_score
        return loss.float(), logits, scores

    def _update_protocol(self, inputs: dict[str, torch.Tensor], logits: torch.Tensor, scores: torch.Tensor) -> None:
        evaluation = self._evaluation
        # Every process sees every sample once, in the data set's order. Masks travel as bytes, maps as small grids.
        logits, scores, labels, masks = self.accelerator.gather_for_metrics(
            (logits, scores, inputs["labels"], inputs["mask_labels"].to(torch.int8))
        )
        first, evaluation.num_seen = evaluation.num_seen, evaluation.num_seen + len(labels)
        evaluation.protocol.update(
            evaluation.dataset.class_names[first : evaluation.num_seen],
            resize_anomaly_map(self._smooth(logits), tuple(masks.shape[-2:])),
            scores,
            labels,
            masks,
        )

    def _smooth(self, anomaly_logits: torch.Tensor) -> torch.Tensor:
        return smooth_anomaly_logits(anomaly_logits, self.args.eval_smoothing)

    # ---- checkpoints ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the whole model and its processor, to be read by `from_pretrained`; a checkpoint's adapters alone.

        Args:
            output_dir (`str`, *optional*): Defaults to `args.output_dir`.
        """
        output_dir = self.args.output_dir if output_dir is None else output_dir
        # The record comes first: transformers may push the folder right after it has saved the model.
        self.save_record(output_dir)
        if not _internal_call:
            super().save_model(output_dir)
        elif self.args.should_save:
            save_adapters(self.model, output_dir)
            self.processing_class.save_pretrained(output_dir)

    # ---- Hub ----

    def create_model_card(self, model_name: str | None = None) -> None:
        """Writes the model card into `args.output_dir`, told from the model, the training record and results there.

        Args:
            model_name (`str`, *optional*): `user/name` on the Hub, by default the trainer's, or the folder's name.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        name = model_name or self.hub_model_id or self.args.hub_model_id or folder.name
        record = None if self.train_dataset is None else self._get_record()
        results = read_results(find_results(folder), folder, self.model.config)
        create_model_card(self.model.config, name, record=record, results=results).save(folder / CARD_NAME)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ):
        """Saves the model in `args.output_dir` and sends it to the Hub, with processor, code, record and card.

        It is what `moeclip push` does with that folder; checkpoints and optimizer states stay here.

        Args:
            commit_message (`str`, *optional*): Title of the commit.
            blocking (`bool`, *optional*, defaults to `True`): Whether to wait until all is sent.
            token (`str`, *optional*): Token with write access; by default `args.hub_token` or the one of `hf auth login`.
            revision (`str`, *optional*): Branch, by default `args.hub_revision` or main.
            private (`bool`, *optional*): Whether the repository must be private; by default `args.hub_private_repo`.

        Returns:
            `str`, `Future` or `None`: The repository's address, what will hold it, or None on all processes but the
            first.

        Raises:
            ValueError: If others could not load the repository, or it is public and shall not be.
            OSError: If the Hub refuses, or the connection breaks.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        folder, token = self.args.output_dir, token or self.args.hub_token
        private = self.args.hub_private_repo if private is None else private
        if self.args.should_save:
            self.model.save_pretrained(folder)
            self.processing_class.save_pretrained(folder)
            self.save_record(folder)
        if not self.is_world_process_zero():
            return None
        if self.hub_model_id is None:
            with hub_errors("Making the repository"):
                self.init_hf_repo(token=token, private=private)
        self.create_model_card()
        files = build_repository(folder, self.hub_model_id)
        arguments = {
            "private": bool(private),
            "token": token,
            "revision": revision or self.args.hub_revision,
            "commit_message": commit_message,
        }
        if blocking:
            return push_repository(files, self.hub_model_id, **arguments)
        return HfApi().run_as_future(push_repository, files, self.hub_model_id, **arguments)

    # ---- what it was trained on ----

    def save_record(self, folder: str) -> None:
        """Writes `training.json`, which says what the model was trained on; `save_model` and checkpoints do it too.

        Args:
            folder (`str`): The model's folder, made if missing.
        """
        if self.args.should_save and self.train_dataset is not None:
            write_training_record(folder, self._get_record())

    def _get_record(self) -> dict:
        args, num_images = self.args, len(self.train_dataset)
        batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        num_train_epochs = args.num_train_epochs if args.max_steps <= 0 else args.max_steps * batch_size / num_images
        holds_best = args.load_best_model_at_end and not self.is_in_train and self.state.best_global_step
        return {
            "preset": args.preset,
            "seed": args.seed,
            "data": args.train_data,
            "benchmark": args.train_benchmark,
            "class_names": list(dict.fromkeys(self.train_dataset.class_names)),
            "object_names": list(self.train_dataset.object_names),
            "num_images": num_images,
            "clip": self.model.config.base_model_name_or_path,
            "image_size": self.model.config.vision_config.image_size,
            "num_train_epochs": num_train_epochs,
            "global_step": self.state.best_global_step if holds_best else self.state.global_step,
            "learning_rate": args.learning_rate,
            "batch_size": batch_size,
            "recipe": args.recipe,
            "versions": get_versions(),
            "commit": get_commit(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def _save_checkpoint(self, model, trial) -> None:
        # The state, written last, marks a complete checkpoint; one left by an earlier run must not vouch for this one.
        state = os.path.join(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}", TRAINER_STATE)
        if self.args.should_save and os.path.exists(state):
            os.remove(state)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The log's averages reach back to its last line, which is not always where a checkpoint is.
        window = {
            "tr_loss": self._tr_loss,
            "last_logged": self._globalstep_last_logged,
            "loss_sums": self._loss_sums,
            "num_batches": self._num_batches,
            "monitor": self.monitor.state_dict(),
        }
        torch.save(window, self._log_window_file(output_dir))
        # The trainer state comes next and must not precede another process's file.
        self.accelerator.wait_for_everyone()

    def _log_window_file(self, checkpoint: str) -> str:
        return os.path.join(checkpoint, f"log_window_{self.args.process_index}.pt")

    def _load_log_window(self) -> None:
        if self._resumed_checkpoint is None or not os.path.isfile(self._log_window_file(self._resumed_checkpoint)):
            return
        # An indexed CPU device cannot be named to `torch.load`.
        device = self.args.device if self.args.device.type != "cpu" else "cpu"
        window = torch.load(self._log_window_file(self._resumed_checkpoint), map_location=device, weights_only=True)
        self._tr_loss, self._globalstep_last_logged = window["tr_loss"], window["last_logged"]
        self._loss_sums, self._num_batches = window["loss_sums"], window["num_batches"]
        self.monitor.load_state_dict(window["monitor"])

    def _find_checkpoint(self, resume_from_checkpoint: str | bool | None) -> str | None:
        if not resume_from_checkpoint:
            return None
        if resume_from_checkpoint is True:
            checkpoint = find_last_checkpoint(self.args.output_dir)
            if checkpoint is None:
                raise ValueError(f"`resume_from_checkpoint`: no complete checkpoint in {self.args.output_dir}.")
            return checkpoint
        checkpoint = os.fspath(resume_from_checkpoint)
        if not is_complete(checkpoint):
            raise ValueError(
                f"`resume_from_checkpoint` ({checkpoint}) must be a complete checkpoint-N folder of a training run."
            )
        return checkpoint

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_adapters(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        logger.info(f"Loading the best checkpoint, {self.state.best_model_checkpoint} ({self.state.best_metric}).")
        load_adapters(self.model, self.state.best_model_checkpoint)


def prepare_model(model: nn.Module, args: MoECLIPTrainingArguments) -> None:
    """Sets the recipe's loss weights and dropout in a model, and checks that it can be trained.

    Args:
        model ([`MoECLIPForAnomalyDetection`]): The model; its configuration is changed too.
        args ([`MoECLIPTrainingArguments`]): The recipe; None values leave the model's own.

    Raises:
        ValueError: If no parameter is trained, or one is in half precision.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError("`model` has no parameter to train: load it by `from_clip` or `from_pretrained`.")
    for name, parameter in trained.items():
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"`model` has {name} in {parameter.dtype}: load it with dtype=torch.float32 and choose half precision "
                "by `bf16=True` or `fp16=True`."
            )
    for name in ("router_aux_loss_coef", "etf_loss_coef"):
        if getattr(args, name) is not None:
            setattr(model.config, name, getattr(args, name))
    if args.lora_dropout is not None and model.config.moe_lora is not None:
        model.config.moe_lora = {**model.config.moe_lora, "lora_dropout": args.lora_dropout}
        for experts in model.moe_lora_layers().values():
            experts.dropout.p = args.lora_dropout
    if args.preset == "released" and model.config.vision_config.hidden_act != "gelu":
        logger.warning(
            f"The released recipe has exact GELU in CLIP, this model has {model.config.vision_config.hidden_act}: "
            'build it by `from_clip(..., hidden_act="gelu")`.'
        )


def _name_datasets(train_dataset, eval_dataset) -> list[tuple[str, Dataset]]:
    evaluated = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
    named = [("train_dataset", train_dataset), *evaluated.items()]
    # a string names one of several data sets that the trainer already has
    return [(name, dataset) for name, dataset in named if dataset is not None and not isinstance(dataset, str)]


def _check_dataset(name: str, dataset: Dataset) -> None:
    if not hasattr(dataset, "object_names") or not hasattr(dataset, "class_names"):
        raise ValueError(
            f"`{name}` ({type(dataset).__name__}) must be an AnomalyDetectionDataset: it names the objects."
        )
    if len(dataset) == 0:
        raise ValueError(f"`{name}` is empty: give at least one sample.")
