import datetime
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import TrainerCallback

from moeclip_hf import MoECLIPForAnomalyDetection
from moeclip_hf.training.checkpoints import find_last_checkpoint, is_complete
from moeclip_hf.training_record import read_training_record

from .conftest import Squares, get_logged
from .worker import KILLED_RUN, build_trainer


TESTS = Path(__file__).parents[1]


def new_losses(trainer, first_step):
    """The losses logged after the resumption; the lines before it come from the checkpoint."""
    return [line["loss"] for line in trainer.state.log_history if "loss" in line and line["step"] > first_step]


# ---- resuming ----


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_run_is_bit_equal(tmp_path, num_workers):
    """From every part of an epoch, with dropout, random ties, augmentation, workers and evaluations in between."""
    settings = {
        "routed": False, "max_steps": 11, "lora_dropout": 0.5, "dataloader_num_workers": num_workers,
        "eval_strategy": "epoch",
    }  # fmt: skip
    whole = build_trainer(tmp_path / "whole", save_strategy="steps", save_steps=1, **settings)
    whole.train()
    expected = get_logged(whole, "loss")
    assert len(set(expected)) == 11
    for step in (3, 5, 9) if num_workers == 0 else (7,):  # an epoch has 5 steps
        torch.manual_seed(step)
        resumed = build_trainer(tmp_path / "resumed", **settings)
        with torch.no_grad():
            resumed.model.text_adapter.weight.add_(1)  # must come from the checkpoint
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert new_losses(resumed, step) == expected[step:]
        for name, parameter in whole.model.named_parameters():
            assert torch.equal(parameter, resumed.model.get_parameter(name)), name


def test_resumed_run_with_accumulation_is_bit_equal(tmp_path):
    settings = {"routed": False, "max_steps": 7, "gradient_accumulation_steps": 2}  # 3 steps an epoch, the last short
    whole = build_trainer(tmp_path, save_strategy="steps", save_steps=2, **settings)
    whole.train()
    for step in (2, 4):
        resumed = build_trainer(tmp_path, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert new_losses(resumed, step) == get_logged(whole, "loss")[step:]


def test_log_lines_that_reach_over_a_checkpoint_are_the_same(tmp_path):
    settings = {"max_steps": 8, "logging_steps": 4, "lora_dropout": 0.5}
    whole = build_trainer(tmp_path, save_strategy="steps", save_steps=6, **settings)
    whole.train()
    resumed = build_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    for name in ("loss", "segmentation_loss", "etf_loss", "lora_B_update/layer_2", "expert_similarity/layer_1"):
        assert get_logged(resumed, name) == get_logged(whole, name)
        assert len(get_logged(whole, name)) == 2


@pytest.fixture
def one_thread():
    """Sums are split by thread, so that runs are equal to the last bit on equally many threads only."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def test_killed_run_continues_exactly(tmp_path, one_thread):
    expected = build_trainer(tmp_path / "whole", routed=False, **KILLED_RUN)
    expected.train()
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-m", "training.worker", str(tmp_path / "run"), "killed"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    assert (tmp_path / "run" / "checkpoint-6" / "model.safetensors").exists()  # half written
    resumed = build_trainer(tmp_path / "run", routed=False, save_strategy="steps", save_steps=2, **KILLED_RUN)
    resumed.train(resume_from_checkpoint=True)
    assert new_losses(resumed, 4) == get_logged(expected, "loss")[4:]
    assert is_complete(str(tmp_path / "run" / "checkpoint-6"))


def test_checkpoint_is_rewritten_from_its_start(tmp_path, monkeypatch):
    """A state of an earlier run must not make a half-written folder look complete."""
    build_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2).train()
    assert is_complete(str(tmp_path / "checkpoint-2"))
    trainer = build_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)

    def fail(output_dir):
        raise RuntimeError("power cut")

    monkeypatch.setattr(trainer, "_save_rng_state", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    assert not is_complete(str(tmp_path / "checkpoint-2"))


def test_last_complete_checkpoint(tmp_path):
    for step in (9, 10, 11):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
            (folder / name).touch()
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (tmp_path / "checkpoint-11" / "trainer_state.json").write_text('{"global_st')
    (tmp_path / "checkpoint-best").mkdir()
    assert find_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "optimizer.pt").unlink()
    assert find_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-9")
    assert find_last_checkpoint(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    ("resume", "message"),
    [(True, "no complete checkpoint in"), ("nothing/checkpoint-3", "must be a complete checkpoint-N folder")],
)
def test_no_checkpoint_to_continue(tiny_model, make_trainer, resume, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model).train(resume_from_checkpoint=resume)


def test_checkpoint_of_another_model(tmp_path, tiny_clip, make_trainer):
    def build(**experts):
        return MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora=experts)

    settings = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    make_trainer(build(r=4), output_dir=str(tmp_path / "first"), **settings).train()
    checkpoint = str(tmp_path / "first" / "checkpoint-1")
    with pytest.raises(ValueError, match="`moe_lora.num_experts_per_tok` 2, the model 1"):
        make_trainer(build(r=4, num_experts_per_tok=1)).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match="`moe_lora.r` 4, the model 2"):
        make_trainer(build(r=2)).train(resume_from_checkpoint=checkpoint)


# ---- what is saved ----


@pytest.fixture
def saved_run(tiny_clip_folder, make_trainer):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
    trainer = make_trainer(model, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    return trainer


def test_checkpoint_holds_the_adapters_alone(saved_run):
    folder = Path(saved_run.args.output_dir) / "checkpoint-2"
    stored = load_file(folder / "model.safetensors")
    trained = {name for name, parameter in saved_run.model.named_parameters() if parameter.requires_grad}
    frozen = {name for name in stored if name.endswith("lora_A")}
    assert set(stored) - frozen == trained
    assert len(frozen) == 4


def test_checkpoint_is_a_model_of_its_own(saved_run):
    model = MoECLIPForAnomalyDetection.from_pretrained(Path(saved_run.args.output_dir) / "checkpoint-2")
    for name, tensor in saved_run.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_saved_model_is_whole_and_says_what_it_was_trained_with(saved_run, tmp_path):
    saved_run.model.config.etf_loss_coef = 0.125
    saved_run.save_model(tmp_path / "model")
    model = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
    assert model.config.etf_loss_coef == 0.125
    assert not hasattr(model.config, "use_cache")
    assert (tmp_path / "model" / "processor_config.json").exists()
    for name, tensor in saved_run.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


# ---- the record of the training ----


def test_record_says_what_the_model_was_trained_on(tiny_clip_folder, make_trainer, tmp_path):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
    trainer = make_trainer(
        model, Squares(8, object_names=("bolt", "steel nut")), max_steps=4, save_strategy="steps", save_steps=2,
        gradient_accumulation_steps=2, seed=7, train_data="my_data", train_benchmark="visa", recipe="mine",
    )  # fmt: skip
    trainer.train()
    trainer.save_model(tmp_path / "model")
    record = read_training_record(tmp_path / "model")
    expected = {
        "preset": "paper", "seed": 7, "data": "my_data", "benchmark": "visa", "class_names": ["class_0", "class_1"],
        "object_names": ["bolt", "steel nut"], "num_images": 8, "clip": tiny_clip_folder, "image_size": 56,
        "num_train_epochs": 2.0, "global_step": 4, "learning_rate": 5e-4, "batch_size": 4, "recipe": "mine",
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected
    assert record["versions"]["transformers"] == transformers.__version__
    assert datetime.datetime.fromisoformat(record["created"]).tzinfo is not None
    steps = [read_training_record(folder)["global_step"] for folder in sorted((tmp_path / "run").glob("checkpoint-*"))]
    assert steps == [2, 4]


# ---- the best checkpoint ----


def test_best_checkpoint_is_loaded_at_the_end(tiny_model, make_trainer, monkeypatch):
    trainer = make_trainer(
        tiny_model, Squares(4), Squares(6), max_steps=3, save_strategy="steps", save_steps=1, eval_strategy="steps",
        eval_steps=1, load_best_model_at_end=True, metric_for_best_model="pixel_auroc", learning_rate=0.05,
        save_total_limit=1,
    )  # fmt: skip
    evaluate = trainer.evaluate
    states, ranks = [], iter([0.6, 0.9, 0.7])

    def rank(*args, **kwargs):
        states.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        return {**evaluate(*args, **kwargs), "eval_pixel_auroc": next(ranks)}

    monkeypatch.setattr(trainer, "evaluate", rank)
    trainer.train()
    assert trainer.state.best_global_step == 2
    trainer.save_record(trainer.args.output_dir)
    assert read_training_record(trainer.args.output_dir)["global_step"] == 2
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, states[1][name]), name
    assert not torch.equal(states[1]["text_adapter.weight"], states[2]["text_adapter.weight"])
    assert [path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*")] == ["checkpoint-2"]


def test_undefined_metric_cannot_choose(tiny_model, make_trainer):
    trainer = make_trainer(
        tiny_model, eval_dataset=Squares(6, unknown_masks=range(6)), max_steps=1, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="pixel_auroc",
    )  # fmt: skip
    with pytest.raises(ValueError, match="`metric_for_best_model` \\('pixel_auroc'\\) is undefined"):
        trainer.train()


def test_evaluation_on_the_training_data_leaves_their_epoch(tiny_model, make_trainer):
    dataset, epochs = Squares(6, augmented=True), []

    class KeepEpoch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            epochs.append(int(dataset.epoch))

    make_trainer(
        tiny_model, dataset, dataset, callbacks=[KeepEpoch()], max_steps=6, eval_strategy="steps", eval_steps=2
    ).train()
    assert epochs == [0, 0, 0, 1, 1, 1]
