"""A training run in a process of its own: one of several, or one that is killed.

`python -m training.worker FOLDER TASK`, with `tests` on the path; under `torch.distributed.run` for several processes.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path

import torch
from conftest import CONTEXT, VOCABULARY, build_clip, randomize_adapters
from transformers import CLIPTokenizer, PrinterCallback, TrainerCallback

from moeclip_hf import (
    MoECLIPForAnomalyDetection,
    MoECLIPImageProcessor,
    MoECLIPProcessor,
    MoECLIPTrainer,
    MoECLIPTrainingArguments,
)

from .conftest import Squares


def build_trainer(folder, routed=True, callbacks=None, train_length=10, **arguments):
    """A trainer on the tiny model, the same wherever it is built."""
    torch.manual_seed(1)
    model = MoECLIPForAnomalyDetection.from_clip(build_clip(), image_size=56, moe_lora={"r": 4, "lora_alpha": 8})
    if routed:
        randomize_adapters(model)
    tokenizer = CLIPTokenizer(vocab=VOCABULARY, merges=[], model_max_length=CONTEXT)
    is_one_of_several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    arguments = {"logging_steps": 1, "save_strategy": "no", **arguments}
    trainer = MoECLIPTrainer(
        model,
        MoECLIPTrainingArguments(
            str(folder),
            use_cpu=True,
            ddp_backend="gloo" if is_one_of_several else None,
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=Squares(train_length, augmented=True),
        eval_dataset=Squares(7),
        processing_class=MoECLIPProcessor(MoECLIPImageProcessor(size=56), tokenizer),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


# ---- several processes ----


def compute_as_one(folder, num_processes):
    """Trains three steps of four images on any number of processes, evaluates, predicts: what must not differ."""
    keep = KeepGradients()
    trainer = build_trainer(
        folder, callbacks=[keep], train_length=12, per_device_train_batch_size=4 // num_processes, per_device_eval_batch_size=2,
        max_steps=3, lora_dropout=0.0, router_aux_loss_coef=0.0, eval_strategy="steps", eval_steps=3,
    )  # fmt: skip
    trainer.train()
    prediction = trainer.predict(trainer.eval_dataset)
    names = ("loss", "grad_norm", "segmentation_loss", "classification_loss", "etf_loss", "eval_loss", "eval_image_ap")
    names += ("eval_pixel_auroc", "lora_B_update/layer_1", "expert_load/layer_1/expert_0")
    return {
        "world_size": trainer.args.world_size,
        "logs": {name: [line[name] for line in trainer.state.log_history if name in line] for name in names},
        "gradients": keep.gradients,
        "scores": torch.from_numpy(prediction.predictions[1]),
        "labels": torch.from_numpy(prediction.label_ids),
    }


class KeepGradients(TrainerCallback):
    """Keeps the gradients of the first step, as flat lists."""

    def __init__(self):
        self.gradients = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0:
            self.gradients = {n: p.grad.flatten().clone() for n, p in model.named_parameters() if p.grad is not None}


def compare_with_resumed(folder):
    """Trains 7 steps of 3 an epoch, then continues from step 4, in the middle of the second epoch."""
    settings = {"max_steps": 7, "lora_dropout": 0.5, "routed": False, "train_length": 12}
    whole = build_trainer(folder, save_strategy="steps", save_steps=4, **settings)
    whole.train()
    resumed = build_trainer(folder, **settings)
    resumed.train(resume_from_checkpoint=str(Path(folder) / "checkpoint-4"))
    losses = {
        name: [line["loss"] for line in trainer.state.log_history if "loss" in line]
        for name, trainer in (("whole", whole), ("resumed", resumed))
    }
    return losses | {"epoch": int(whole.train_dataset.epoch)}


# ---- killed ----


def train_until_killed(folder):
    """Saves every second step and is killed while it writes the checkpoint of step 6."""
    trainer = build_trainer(folder, routed=False, save_strategy="steps", save_steps=2, **KILLED_RUN)
    save_rng_state = trainer._save_rng_state

    def die(output_dir):
        if trainer.state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        save_rng_state(output_dir)

    trainer._save_rng_state = die
    trainer.train()


KILLED_RUN = {"max_steps": 11, "lora_dropout": 0.5, "dataloader_num_workers": 1}


def main():
    folder, task = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    if task == "killed":
        train_until_killed(folder)
        return
    result = compute_as_one(folder / "run", num_processes=2)
    losses = compare_with_resumed(folder / "resumed")
    if int(os.environ["RANK"]) == 0:
        torch.save(result, folder / "result.pt")
        (folder / "losses.json").write_text(json.dumps(losses))
    gc.collect()  # trainers are cycles; each holds the process group, whose threads would outlive the interpreter
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
