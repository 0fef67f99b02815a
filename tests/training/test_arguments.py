import pytest
import torch

from moeclip_hf import MoECLIPTrainingArguments
from moeclip_hf.training.presets import PRESETS, get_preset
from moeclip_hf.training.trainer import prepare_model


def make(tmp_path, **arguments):
    return MoECLIPTrainingArguments(str(tmp_path), use_cpu=True, **arguments)


def test_defaults_are_the_papers(tmp_path):
    args = make(tmp_path)
    assert (args.preset, args.learning_rate, args.max_grad_norm) == ("paper", 5e-4, 1.0)
    assert (args.adam_beta1, args.adam_beta2, args.weight_decay) == (0.5, 0.999, 0.0)
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.seed) == (2, 20, 111)
    assert (args.lr_milestones, args.lr_gamma) == ([16000, 32000], 0.5)
    assert args.label_names == ["labels", "mask_labels"]
    assert args.remove_unused_columns is False


def test_released(tmp_path):
    args = make(tmp_path, preset="released")
    assert (args.learning_rate, args.max_grad_norm) == (5e-5, 0.0)
    assert (args.router_aux_loss_coef, args.etf_loss_coef, args.lora_dropout) == (0.0, 0.0, 0.0)
    assert get_preset("released").hidden_act == "gelu"
    assert get_preset("paper").hidden_act is None


@pytest.mark.parametrize("preset", PRESETS)
def test_explicit_value_wins(tmp_path, preset):
    explicit = {
        "learning_rate": 1e-2,
        "max_grad_norm": 0.0 if preset == "paper" else 3.0,
        "router_aux_loss_coef": 0.5,
        "etf_loss_coef": 0.25,
        "lora_dropout": 0.125,
    }
    args = make(tmp_path, preset=preset, **explicit)
    assert {name: getattr(args, name) for name in explicit} == explicit


def test_paper_keeps_the_models_own_losses_and_dropout(tmp_path, fresh_model):
    fresh_model.config.etf_loss_coef = 0.0  # an ablation
    prepare_model(fresh_model, make(tmp_path))
    assert (fresh_model.config.router_aux_loss_coef, fresh_model.config.etf_loss_coef) == (0.01, 0.0)
    assert fresh_model.config.moe_lora["lora_dropout"] == 0.05
    assert {experts.dropout.p for experts in fresh_model.moe_lora_layers().values()} == {0.05}


def test_released_switches_losses_and_dropout_off(tmp_path, fresh_model):
    prepare_model(fresh_model, make(tmp_path, preset="released"))
    assert (fresh_model.config.router_aux_loss_coef, fresh_model.config.etf_loss_coef) == (0.0, 0.0)
    assert fresh_model.config.moe_lora["lora_dropout"] == 0.0
    assert {experts.dropout.p for experts in fresh_model.moe_lora_layers().values()} == {0.0}


def test_half_precision_weights_are_refused(tmp_path, fresh_model):
    with pytest.raises(ValueError, match="bf16=True"):
        prepare_model(fresh_model.to(torch.bfloat16), make(tmp_path))


def test_frozen_model_is_refused(tmp_path, fresh_model):
    with pytest.raises(ValueError, match="no parameter to train"):
        prepare_model(fresh_model.requires_grad_(False), make(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "best"}, "`preset` \\('best'\\) must be one of 'paper', 'released'"),
        ({"learning_rate": 0.0}, "`learning_rate` \\(0.0\\) must be a finite number above 0"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"lr_gamma": 0.0}, "`lr_gamma`"),
        ({"max_grad_norm": -1.0}, "`max_grad_norm`"),
        ({"etf_loss_coef": -0.1}, "`etf_loss_coef`"),
        ({"weight_decay": -0.1}, "`weight_decay`"),
        ({"router_aux_loss_coef": float("inf")}, "`router_aux_loss_coef`"),
        ({"lora_dropout": 1.0}, "`lora_dropout`"),
        ({"lr_milestones": [20, 10]}, "`lr_milestones`"),
        ({"lr_milestones": [0]}, "`lr_milestones`"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size`"),
        ({"num_train_epochs": 0}, "`num_train_epochs`"),
        ({"max_steps": 0}, "`max_steps` \\(0\\) must be at least 1, or -1"),
        ({"max_steps": -2}, "`max_steps` \\(-2\\)"),
        ({"seed": -1}, "`seed` \\(-1\\) must be at least 0"),
        ({"logging_steps": 0}, "`logging_steps` \\(0\\) must be a finite number above 0"),
        ({"save_steps": -5}, "`save_steps` \\(-5\\)"),
        ({"eval_smoothing": "space"}, "`eval_smoothing` \\('space'\\)"),
    ],
)
def test_wrong_values(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **arguments)
