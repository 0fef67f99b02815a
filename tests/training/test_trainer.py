import math

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPTrainer, MoECLIPTrainingArguments
from moeclip_hf.data import collate_anomaly_samples
from moeclip_hf.evaluation import BenchmarkProtocol
from moeclip_hf.processing_moeclip import resize_anomaly_map, smooth_anomaly_logits

from .conftest import Squares, get_logged


def full_batch(dataset):
    return collate_anomaly_samples([dataset[index] for index in range(len(dataset))])


def compute_outputs(model, processor, dataset, rows):
    """What the model says of some samples, the prompts given as text."""
    batch = collate_anomaly_samples([dataset[index] for index in rows])
    prompts = processor(object_names=dataset.object_names)
    return model(**{**prompts, **batch}), batch


class KeepGradients(TrainerCallback):
    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


# ---- the loss and the log ----


def test_loss_and_gradients_are_those_of_the_batch(tiny_model, processor, make_trainer):
    dataset, keep = Squares(), KeepGradients()
    trainer = make_trainer(
        tiny_model, dataset, callbacks=[keep], max_steps=1, lora_dropout=0.0, max_grad_norm=0.0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    expected, _ = compute_outputs(tiny_model.train(), processor, dataset, [0, 1])
    expected.loss.backward()
    reference = {n: p.grad.clone() for n, p in tiny_model.named_parameters() if p.grad is not None}
    tiny_model.zero_grad()
    trainer.train()
    for name in ("loss", "classification_loss", "segmentation_loss", "aux_loss", "etf_loss"):
        assert get_logged(trainer, name) == pytest.approx([expected[name].item()], rel=1e-5), name
    assert keep.gradients[0].keys() == reference.keys()
    for name, gradient in reference.items():
        torch.testing.assert_close(keep.gradients[0][name], gradient, rtol=1e-4, atol=1e-5)


def test_log_averages_the_batches_since_the_last_line(tiny_model, make_trainer):
    settings = {"max_steps": 4, "lora_dropout": 0.0, "learning_rate": 1e-12, "train_sampling_strategy": "sequential"}
    each = make_trainer(tiny_model, **settings)
    each.train()
    pairs = make_trainer(tiny_model, logging_steps=2, **settings)
    pairs.train()
    for name in ("loss", "segmentation_loss", "classification_loss", "aux_loss", "etf_loss", "lora_B_update/layer_0"):
        first, second, third, fourth = get_logged(each, name)
        assert get_logged(pairs, name) == pytest.approx([(first + second) / 2, (third + fourth) / 2], rel=1e-4), name


def test_accumulated_batches_are_one_larger_batch(tiny_model, make_trainer):
    # a mask on every image, the balance loss off: every term is then a mean over images of equal weight
    settings = {
        "max_steps": 2, "lora_dropout": 0.0, "router_aux_loss_coef": 0.0, "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
    }  # fmt: skip
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    runs = []
    for batch_size, accumulated in ((4, 1), (2, 2), (1, 4)):
        tiny_model.load_state_dict(start)
        keep = KeepGradients()
        trainer = make_trainer(
            tiny_model, callbacks=[keep], per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulated, **settings,
        )  # fmt: skip
        trainer.train()
        runs.append((get_logged(trainer, "loss"), get_logged(trainer, "segmentation_loss"), keep.gradients))
    for losses, terms, gradients in runs[1:]:
        assert losses == pytest.approx(runs[0][0], rel=1e-5)
        assert terms == pytest.approx(runs[0][1], rel=1e-5)
        for name, gradient in runs[0][2][0].items():
            torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-5)


def test_last_accumulated_step_of_an_epoch_is_averaged_over_its_own_batches(tiny_model, make_trainer):
    settings = {"max_steps": 2, "lora_dropout": 0.0, "learning_rate": 1e-12, "train_sampling_strategy": "sequential"}
    three = make_trainer(tiny_model, Squares(6), gradient_accumulation_steps=2, **settings)
    three.train()  # 2 batches, then 1
    each = make_trainer(tiny_model, Squares(6), **{**settings, "max_steps": 3})
    each.train()
    first, second, third = get_logged(each, "loss")
    assert get_logged(three, "loss") == pytest.approx([(first + second) / 2, third], rel=1e-5)


def test_unknown_masks_count_on_image_level_only(tiny_model, processor, make_trainer):
    dataset = Squares(unknown_masks=range(8))
    trainer = make_trainer(tiny_model, dataset, max_steps=2)
    trainer.train()
    assert get_logged(trainer, "segmentation_loss") == [0.0, 0.0]
    assert all(value > 0 for value in get_logged(trainer, "classification_loss"))


def test_experts_are_logged_per_layer(fresh_model, make_trainer):
    trainer = make_trainer(fresh_model, max_steps=3)
    trainer.train()
    layers = list(fresh_model.moe_lora_layers())
    assert layers == [0, 1, 2, 3]
    for layer in layers:
        updates = get_logged(trainer, f"lora_B_update/layer_{layer}")
        assert updates[0] == pytest.approx(1.0, abs=1e-2)  # Adam's first step is one learning rate for every entry
        assert all(0 < value <= 1.01 for value in updates)
        assert all(-1 <= value <= 1 for value in get_logged(trainer, f"expert_similarity/layer_{layer}"))
        load = [get_logged(trainer, f"expert_load/layer_{layer}/expert_{i}") for i in range(4)]
        assert [step[0] for step in load] == pytest.approx([0.25] * 4)  # the routers start uniform
        assert [sum(step) for step in zip(*load, strict=True)] == pytest.approx([1.0] * 3)


def test_model_without_experts(tiny_clip, make_trainer):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora=None)
    trainer = make_trainer(
        model, eval_dataset=Squares(4), max_steps=2, preset="released", save_strategy="steps", save_steps=1
    )
    trainer.train()
    trainer.evaluate()
    assert len(get_logged(trainer, "segmentation_loss")) == 2
    assert not any("layer" in name or name == "etf_loss" for line in trainer.state.log_history for name in line)


def test_update_is_measured_on_the_weights(fresh_model, make_trainer):
    settings = {"learning_rate": 1e-3, "lr_milestones": [1], "lr_gamma": 0.5, "max_steps": 2}
    snapshots = []

    class Snapshot(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            snapshots.append(model.moe_lora_layers()[2].lora_B.detach().clone())

    trainer = make_trainer(fresh_model, callbacks=[Snapshot()], **settings)
    trainer.train()
    snapshots.append(fresh_model.moe_lora_layers()[2].lora_B.detach())
    expected = [
        (after - before).abs().mean().item() / rate
        for before, after, rate in zip(snapshots, snapshots[1:], (1e-3, 5e-4), strict=False)
    ]
    assert get_logged(trainer, "lora_B_update/layer_2") == pytest.approx(expected, rel=1e-4)


def test_steps_at_a_rate_of_zero_are_left_out_of_the_update(fresh_model, make_trainer):
    """The first step of a warm-up has the rate 0 and moves nothing: no share of it is a number."""
    settings = {"lr_scheduler_type": "linear", "warmup_steps": 2, "max_steps": 4, "logging_steps": 2}
    trainer = make_trainer(fresh_model, **settings)
    trainer.train()
    first, second = get_logged(trainer, "lora_B_update/layer_0")
    assert 0.1 < first < 2
    assert 0 < second < 2


def test_training_leaves_no_hooks_behind(fresh_model, make_trainer):
    make_trainer(fresh_model, max_steps=1).train()
    assert not any(experts._forward_hooks for experts in fresh_model.moe_lora_layers().values())


def test_experts_keep_moving_with_the_papers_recipe(tiny_clip, make_trainer):
    """The mean |dB| / lr over layers and steps 50 to 300 stays above 0.2; without clipping it collapses.

    B starts at zero, where the norm match blows its first gradient up; unclipped, Adam remembers that gradient and the
    experts hardly move again.
    """
    means = {}
    for max_grad_norm, steps in ((1.0, 300), (0.0, 100)):
        torch.manual_seed(1)
        model = MoECLIPForAnomalyDetection.from_clip(
            tiny_clip, image_size=28, moe_lora={"r": 4, "lora_alpha": 8}, patch_average_kernel_sizes=(1,)
        )
        trainer = make_trainer(
            model, Squares(600, image_size=28), max_steps=steps, logging_steps=50, max_grad_norm=max_grad_norm,
            lr_milestones=[],
        )  # fmt: skip
        trainer.train()
        updates = [get_logged(trainer, f"lora_B_update/layer_{layer}")[1:] for layer in range(4)]
        means[max_grad_norm] = np.mean(updates)
    assert means[1.0] > 0.2
    assert means[0.0] < 0.1 * means[1.0]


def test_loss_falls_and_the_clip_stays(fresh_model, make_trainer):
    frozen = {n: p.clone() for n, p in fresh_model.named_parameters() if not p.requires_grad}
    trainer = make_trainer(fresh_model, max_steps=40)
    trainer.train()
    losses = get_logged(trainer, "loss")
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert frozen
    for name, parameter in fresh_model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


# ---- schedule, precision, reports ----


def test_learning_rate_follows_the_milestones(fresh_model, make_trainer):
    trainer = make_trainer(fresh_model, max_steps=5, learning_rate=0.008, lr_milestones=[2, 4])
    trainer.train()
    assert get_logged(trainer, "learning_rate") == [0.008, 0.008, 0.004, 0.004, 0.002]


def test_another_scheduler_takes_the_place_of_the_milestones(fresh_model, make_trainer):
    trainer = make_trainer(
        fresh_model, max_steps=4, learning_rate=0.008, lr_milestones=[1], lr_scheduler_type="linear"
    )
    trainer.train()
    assert get_logged(trainer, "learning_rate") == pytest.approx([0.008, 0.006, 0.004, 0.002])


@pytest.mark.parametrize("precision", [{}, {"bf16": True}])
def test_first_steps_are_finite(fresh_model, make_trainer, precision):
    trainer = make_trainer(fresh_model, max_steps=3, **precision)
    trainer.train()
    for line in trainer.state.log_history[:-1]:
        assert all(math.isfinite(value) for value in line.values())
    assert all(torch.isfinite(parameter).all() for parameter in fresh_model.parameters())
    assert {parameter.dtype for parameter in fresh_model.parameters()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [{}, {"bf16": True}, {"fp16": True}])
def test_first_steps_are_finite_on_a_gpu(fresh_model, make_trainer, precision):
    trainer = make_trainer(fresh_model, max_steps=3, use_cpu=False, **precision)
    trainer.train()
    assert trainer.args.device.type == "cuda"
    assert all(math.isfinite(loss) for loss in get_logged(trainer, "loss"))
    assert all(torch.isfinite(parameter).all() for parameter in fresh_model.parameters())


def test_activation_checkpointing_changes_nothing(tiny_model, make_trainer):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    losses = []
    for checkpointing in (False, True):
        tiny_model.load_state_dict(start)
        trainer = make_trainer(tiny_model, activation_checkpointing=checkpointing)
        trainer.train()
        losses.append(get_logged(trainer, "loss"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_tensorboard_gets_every_term(fresh_model, make_trainer, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_trainer(fresh_model, report_to="tensorboard", max_steps=2).train()
    (folder,) = {file.parent for file in (tmp_path / "run").rglob("events.out.tfevents.*")}
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    for name in ("loss", "segmentation_loss", "etf_loss", "lora_B_update/layer_0", "expert_load/layer_3/expert_1"):
        assert f"train/{name}" in tags
        assert len(events.Scalars(f"train/{name}")) == 2


def test_order_follows_from_the_seed_alone(fresh_model, make_trainer):
    orders = []
    for state, seed in ((1, 111), (2, 111), (1, 112)):
        trainer = make_trainer(fresh_model, seed=seed)
        torch.manual_seed(state)  # whatever else draws random numbers
        loader = trainer.get_train_dataloader()
        loader.set_epoch(1)
        orders.append([int(label) for batch in loader for label in batch["pixel_values"].sum((1, 2, 3))])
    assert orders[0] == orders[1] != orders[2]


# ---- prompts ----


def test_text_tower_runs_once_per_object(fresh_model, make_trainer):
    calls = []
    fresh_model.text_model.register_forward_hook(lambda *_: calls.append(1))
    validation = Squares(6, object_names=("nut", "screw"))
    trainer = make_trainer(fresh_model, eval_dataset=validation, max_steps=8, eval_strategy="steps", eval_steps=2)
    trainer.train()
    trainer.evaluate()
    trainer.predict(validation)
    assert len(calls) == 3  # bolt, nut, screw


def test_each_data_set_numbers_its_own_objects(tiny_model, processor, make_trainer):
    validation = Squares(6, object_names=("screw", "nut", "bolt"))
    trainer = make_trainer(tiny_model, eval_dataset=validation, per_device_eval_batch_size=2)
    trainer.train()
    expected, _ = compute_outputs(tiny_model.eval(), processor, validation, range(6))
    predictions = trainer.predict(validation).predictions
    np.testing.assert_allclose(predictions[1], expected.image_score.detach(), atol=1e-6)
    np.testing.assert_allclose(predictions[0], expected.anomaly_logits.detach(), rtol=1e-4, atol=1e-3)


# ---- evaluation ----


def compute_protocol(model, processor, dataset, smoothing="industrial"):
    with torch.no_grad():
        outputs, batch = compute_outputs(model.eval(), processor, dataset, range(len(dataset)))
    maps = resize_anomaly_map(smooth_anomaly_logits(outputs.anomaly_logits, smoothing), 56)
    protocol = BenchmarkProtocol(smoothing)
    protocol.update(dataset.class_names, maps, outputs.image_score, batch["labels"], batch["mask_labels"])
    return protocol.compute()["mean"], outputs


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_evaluation_is_the_protocol(tiny_model, processor, make_trainer, batch_size):
    dataset = Squares(10)
    expected, _ = compute_protocol(tiny_model, processor, dataset)
    trainer = make_trainer(tiny_model, eval_dataset=dataset, per_device_eval_batch_size=batch_size)
    metrics = trainer.evaluate()
    for name in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap"):
        assert metrics[f"eval_{name}"] == pytest.approx(expected[name], abs=1e-4), name


def test_eval_loss_weighs_images_alike(tiny_model, processor, make_trainer):
    dataset = Squares(7)
    tiny_model.eval()
    with torch.no_grad():
        batches = [[0, 1], [2, 3], [4, 5], [6]]
        losses = [compute_outputs(tiny_model, processor, dataset, rows)[0].loss.item() for rows in batches]
    trainer = make_trainer(tiny_model, eval_dataset=dataset, per_device_eval_batch_size=2)
    assert trainer.evaluate()["eval_loss"] == pytest.approx((2 * sum(losses[:3]) + losses[3]) / 7, rel=1e-5)


def test_evaluation_keeps_no_maps(tiny_model, make_trainer, monkeypatch):
    kept = []
    trainer = make_trainer(tiny_model, eval_dataset=Squares(6), per_device_eval_batch_size=2)
    step = trainer.prediction_step
    monkeypatch.setattr(
        trainer, "prediction_step", lambda *args, **kwargs: kept.append(step(*args, **kwargs)) or kept[-1]
    )
    trainer.evaluate()
    assert [(logits, labels) for _, logits, labels in kept] == [(None, None)] * 3


def test_predict_returns_maps_scores_and_metrics(tiny_model, processor, make_trainer):
    dataset = Squares(5)
    expected, outputs = compute_protocol(tiny_model, processor, dataset)
    output = make_trainer(tiny_model, per_device_eval_batch_size=2).predict(dataset)
    logits, scores = output.predictions
    assert logits.shape == (5, 4, 4)
    np.testing.assert_allclose(scores, outputs.image_score, atol=1e-6)
    assert output.label_ids.tolist() == [0, 1, 0, 1, 0]
    assert output.metrics["test_pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-4)


def test_undefined_metrics_are_nan_and_said(tiny_model, make_trainer, caplog):
    dataset = Squares(6, unknown_masks=range(6))
    metrics = make_trainer(tiny_model, eval_dataset=dataset).evaluate()
    assert math.isnan(metrics["eval_pixel_auroc"])
    assert metrics["eval_image_auroc"] >= 0
    assert "eval_pixel_auroc is undefined for every class" in caplog.text


def test_several_validation_sets(tiny_model, make_trainer):
    metrics = make_trainer(tiny_model, eval_dataset={"a": Squares(4), "b": Squares(6)}).evaluate()
    assert {"eval_a_image_auroc", "eval_b_pixel_ap", "eval_a_loss", "eval_b_loss"} <= set(metrics)


def test_medical_protocol_needs_its_grid(tiny_model, make_trainer):
    with pytest.raises(ValueError, match="needs a grid of at least 5 patches"):
        make_trainer(tiny_model, eval_dataset=Squares(4), eval_smoothing="medical")


# ---- arguments ----


def test_dataset_without_object_names(fresh_model, make_trainer):
    with pytest.raises(ValueError, match="`train_dataset` \\(list\\) must be an AnomalyDetectionDataset"):
        make_trainer(fresh_model, [1, 2])


def test_plain_training_arguments(fresh_model, processor, tmp_path):
    with pytest.raises(ValueError, match="`args` \\(TrainingArguments\\) must be MoECLIPTrainingArguments"):
        MoECLIPTrainer(fresh_model, TrainingArguments(str(tmp_path), use_cpu=True), processing_class=processor)


def test_no_processor(fresh_model, tmp_path):
    with pytest.raises(ValueError, match="`processing_class` \\(None\\) must be a MoECLIPProcessor"):
        MoECLIPTrainer(fresh_model, train_dataset=Squares())


def test_no_training_data(fresh_model, processor, make_trainer):
    trainer = make_trainer(fresh_model)
    trainer.train_dataset = None
    with pytest.raises(ValueError, match="`train_dataset` \\(None\\)"):
        trainer.train()


def test_model_init(tiny_clip_folder, processor, tmp_path):
    args = MoECLIPTrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=1, save_strategy="no", preset="released"
    )
    trainer = MoECLIPTrainer(
        args=args,
        model_init=lambda: MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4}),
        train_dataset=Squares(),
        processing_class=processor,
    )
    trainer.train()
    assert trainer.model.config.etf_loss_coef == 0
