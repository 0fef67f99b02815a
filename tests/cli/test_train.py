import json
import re
import shutil

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from PIL import Image

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.cli import main
from moeclip_hf.data import load_anomaly_dataset
from moeclip_hf.evaluation import evaluate_model
from moeclip_hf.hub import build_repository
from moeclip_hf.training import recipe as recipe_steps
from moeclip_hf.training.recipe_file import read_recipe
from moeclip_hf.training_record import read_training_record


def draw(folder, name, index, anomalous, with_mask=True):
    """One grey picture of 60 x 70 pixels, with a white rectangle if anomalous."""
    rng = np.random.default_rng(index)
    pixels = rng.integers(80, 120, (60, 70, 3), dtype=np.uint8)
    kind = "spot" if anomalous else "good"
    if anomalous:
        pixels[10:30, 20:50] = 250
    if anomalous and with_mask:
        mask = np.zeros((60, 70), dtype=np.uint8)
        mask[10:30, 20:50] = 255
        truth = folder / name / "ground_truth" / kind
        truth.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(truth / f"{index:03}_mask.png")
    test = folder / name / "test" / kind
    test.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(test / f"{index:03}.png")


def write_benchmark(folder, names=("metal_nut", "tile"), num_images=4, with_masks=True):
    for name in names:
        for index in range(num_images):
            draw(folder, name, index, anomalous=index % 2 == 1, with_mask=with_masks)
    return str(folder)


@pytest.fixture
def data(tmp_path):
    return write_benchmark(tmp_path / "data")


@pytest.fixture
def validation(tmp_path):
    return write_benchmark(tmp_path / "validation", names=("zipper",))


@pytest.fixture
def run(tiny_clip_folder, data, tmp_path):
    """Runs `moeclip train` on small images; `--output` is `model`."""

    def run(*options, data=data, clip=tiny_clip_folder):
        required = ["--clip", str(clip), "--data", str(data), "--output", str(tmp_path / "model")]
        return main(["train", *required, "--image-size", "56", "--cpu", *options])

    return run


def one_line_error(capsys):
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("moeclip: error:")]
    assert errors == lines[-1:]
    assert not any("Traceback" in line for line in lines)
    return errors[0]


def read_losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in history if "loss" in line]


def test_trains_a_model_that_loads_and_evaluates(run, data, tiny_clip_folder, tmp_path, capsys):
    assert run("--epochs", "2", "--logging-steps", "1") == 0
    report = capsys.readouterr().err
    assert re.search(r"trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}", report)
    assert "8 pictures of 2 classes, 4 normal and 4 anomalous" in report
    assert len(read_losses(tmp_path / "model")) == 8
    model = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
    processor = MoECLIPProcessor.from_pretrained(tmp_path / "model")
    assert all(experts.lora_B.abs().sum() > 0 for experts in model.moe_lora_layers().values())
    record = read_training_record(tmp_path / "model")
    assert (record["data"], record["clip"], record["benchmark"]) == (data, tiny_clip_folder, None)
    assert (record["class_names"], record["object_names"]) == (["metal_nut", "tile"], ["metal nut", "tile"])
    assert (record["num_images"], record["num_train_epochs"], record["batch_size"]) == (8, 2, 2)
    results = evaluate_model(model, processor, load_anomaly_dataset(data), progress=False)
    assert set(results["classes"]) == {"metal_nut", "tile"}


def test_adapters_only(run, tmp_path):
    assert run("--max-steps", "1", "--adapters-only") == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["adapters_only"] is True
    model = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
    assert model.config.vision_config.image_size == 56
    MoECLIPProcessor.from_pretrained(tmp_path / "model")


def test_released_preset_reaches_model_and_trainer(run, tmp_path):
    assert run("--preset", "released", "--max-steps", "1", "--logging-steps", "1") == 0
    config = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model").config
    assert (config.vision_config.hidden_act, config.text_config.hidden_act) == ("gelu", "gelu")
    assert (config.router_aux_loss_coef, config.etf_loss_coef, config.moe_lora["lora_dropout"]) == (0, 0, 0)
    history = json.loads((tmp_path / "model" / "trainer_state.json").read_text())["log_history"]
    assert history[0]["learning_rate"] == 5e-5


def test_best_on_validation_data_becomes_the_model(run, validation, tmp_path, capsys):
    assert run("--epochs", "3", "--validation-data", validation, "--metric", "loss", "--learning-rate", "0.02") == 0
    state = json.loads((tmp_path / "model" / "trainer_state.json").read_text())
    losses = {line["step"]: line["eval_loss"] for line in state["log_history"] if "eval_loss" in line}
    best = min(losses, key=losses.get)
    assert state["best_global_step"] == best
    checkpoint = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model" / f"checkpoint-{best}")
    model = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, checkpoint.state_dict()[name]), name


def test_resumed_run_continues_exactly(run, tmp_path, capsys):
    # the whole run keeps its last two checkpoints, of steps 8 and 12
    assert run("--epochs", "3", "--logging-steps", "1") == 0
    expected = read_losses(tmp_path / "model")
    assert run("--epochs", "3", "--logging-steps", "1", "--resume-from-checkpoint") == 0
    assert read_losses(tmp_path / "model") == expected
    checkpoint = str(tmp_path / "model" / "checkpoint-8")
    assert run("--epochs", "3", "--logging-steps", "1", "--resume-from-checkpoint", checkpoint) == 0
    assert read_losses(tmp_path / "model") == expected
    assert len(expected) == 12
    capsys.readouterr()
    assert run("--max-steps", "1") == 0
    assert "checkpoints of an earlier run" in capsys.readouterr().err


def test_list_with_a_root(run, data, tmp_path):
    lines = [
        {"image_path": "metal_nut/test/good/000.png", "label": 0, "class_name": "metal_nut"},
        {
            "image_path": "tile/test/spot/001.png", "label": 1, "class_name": "tile",
            "mask_path": "tile/ground_truth/spot/001_mask.png",
        },
    ]  # fmt: skip
    list_file = tmp_path / "elsewhere" / "half.jsonl"
    list_file.parent.mkdir()
    list_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("--max-steps", "1", "--root", data, data=list_file) == 0


def test_images_without_masks_are_said(run, tmp_path, capsys):
    data = write_benchmark(tmp_path / "plain", with_masks=False)
    assert run("--max-steps", "1", "--logging-steps", "1", data=data) == 0
    assert "4 of 4 anomalous pictures have no mask" in capsys.readouterr().err


def test_images_without_masks_train_on_their_labels(run, data, tmp_path, capsys):
    for mask in (tmp_path / "data" / "tile" / "ground_truth" / "spot").iterdir():
        mask.unlink()
    assert run("--max-steps", "1") == 0
    assert "2 of 8 images train on their image label alone: without a known mask" in capsys.readouterr().err
    plain = write_benchmark(tmp_path / "plain", with_masks=False)
    assert run("--max-steps", "2", "--logging-steps", "1", data=plain) == 0
    assert "8 of 8 images train on their image label alone" in capsys.readouterr().err
    assert len(read_losses(tmp_path / "model")) == 2
    history = json.loads((tmp_path / "model" / "trainer_state.json").read_text())["log_history"]
    assert {line["segmentation_loss"] for line in history if "segmentation_loss" in line} == {0}


def test_images_with_masks_are_not_said_to_lack_them(run, capsys):
    assert run("--max-steps", "1") == 0
    assert "on their image label alone" not in capsys.readouterr().err


def test_normal_images_alone(run, tmp_path, capsys):
    for index in range(2):
        draw(tmp_path / "normal", "tile", index, anomalous=False)
    assert run("--max-steps", "2", "--logging-steps", "1", data=tmp_path / "normal") == 0
    assert "2 pictures of 1 classes, 2 normal and 0 anomalous" in capsys.readouterr().err
    assert all(np.isfinite(read_losses(tmp_path / "model")))


def test_benchmark_by_its_name(run, tmp_path, capsys):
    for name in ("bottle", "screw"):
        for index in range(2):
            draw(tmp_path / "mvtec", name, index, anomalous=index == 1)
    assert run("--max-steps", "1", "--root", str(tmp_path / "mvtec"), data="mvtec") == 0
    report = capsys.readouterr().err
    assert "not the whole of MVTec-AD: cable: no pictures; capsule: no pictures" in report
    assert "bottle: 1 of 20 normal pictures" in report
    assert "4 pictures of 2 classes" in report


def test_saved_data_set_by_its_columns_and_split(run, tmp_path, capsys):
    rows = load_anomaly_dataset(write_benchmark(tmp_path / "source")).rename_columns(
        {"image": "photo", "mask": "truth"}
    )
    splits = DatasetDict({"train": rows.select(range(4)), "holdout": rows.select(range(4, 8))})
    splits.save_to_disk(tmp_path / "saved")
    columns = ["--image-column", "photo", "--mask-column", "truth", "--object-name", "nut"]
    saved = str(tmp_path / "saved")
    validation = ["--validation-data", saved, "--validation-split", "holdout", "--metric", "loss"]
    assert run("--epochs", "1", "--split", "train", *columns, *validation, data=saved) == 0
    assert "4 pictures of 1 classes, 2 normal and 2 anomalous" in capsys.readouterr().err
    assert (
        run("--split", "train", *columns, "--validation-data", saved, "--validation-split", "train", data=saved) == 1
    )
    assert "must not be the training data" in one_line_error(capsys)


def test_mask_threshold_reaches_training(run, tmp_path, data):
    """A mask of faint values marks nothing above 127, so the loss differs."""
    for mask in (tmp_path / "data").rglob("*_mask.png"):
        Image.fromarray((np.asarray(Image.open(mask)) > 0).astype(np.uint8) * 100).save(mask)
    losses = []
    for threshold in ("0", "127"):
        assert run("--max-steps", "1", "--logging-steps", "1", "--mask-threshold", threshold) == 0
        losses.append(read_losses(tmp_path / "model"))
    assert losses[0] != losses[1]


def test_empty_masks_are_said(run, data, tmp_path, capsys):
    mask = tmp_path / "data" / "tile" / "ground_truth" / "spot" / "001_mask.png"
    Image.fromarray(np.zeros((60, 70), dtype=np.uint8)).save(mask)
    assert run("--max-steps", "1") == 0
    assert "1 of 4 anomalous pictures have an empty mask" in capsys.readouterr().err


def test_bf16(run, tmp_path):
    assert run("--max-steps", "2", "--logging-steps", "1", "--precision", "bf16") == 0
    assert all(np.isfinite(read_losses(tmp_path / "model")))


@pytest.fixture
def recipe(tmp_path):
    """A recipe file on a base; its model has one expert and no image head, its training two steps."""
    (tmp_path / "base.json").write_text(
        json.dumps({"preset": "released", "learning_rate": 0.03, "max_steps": 9, "seed": 7, "use_image_head": False})
    )
    path = tmp_path / "recipe_mine.json"
    own = {"base": "base.json", "max_steps": 2, "moe_lora": {"num_experts": 1, "num_experts_per_tok": 1, "r": 4}}
    path.write_text(json.dumps(own))
    return str(path)


def read_run(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    config = MoECLIPForAnomalyDetection.from_pretrained(folder).config
    return history, config, read_training_record(folder)


def test_recipe_is_what_is_trained(run, recipe, tmp_path):
    assert run("--recipe", recipe, "--logging-steps", "1") == 0
    history, config, record = read_run(tmp_path / "model")
    assert [line["learning_rate"] for line in history if "loss" in line] == [0.03, 0.03]
    assert (config.use_image_head, config.moe_lora["num_experts"], config.moe_lora["r"]) == (False, 1, 4)
    assert (config.moe_lora["seed"], config.moe_lora["lora_dropout"], config.etf_loss_coef) == (7, 0.0, 0.0)
    assert config.vision_config.hidden_act == "gelu"
    assert (record["recipe"], record["seed"], record["preset"]) == (f"{tmp_path.name}/recipe_mine", 7, "released")
    assert record["learning_rate"] == 0.03
    # it goes beside the model, and to the Hub with it
    written = read_recipe(tmp_path / "model" / "recipe.json").values
    named = {"clip": record["clip"], "data": record["data"], "image_size": 56}
    assert written == read_recipe(recipe).values | named
    pushed = json.loads(build_repository(tmp_path / "model", "user/name")["recipe.json"])
    assert pushed == written | {"clip": "tiny_clip", "data": "data"} | {"title": "recipe mine"}


def test_command_line_counts_more_than_the_recipe(run, recipe, tmp_path):
    options = ["--learning-rate", "0.02", "--seed", "8", "--epochs", "0.5", "--batch-size", "4", "--preset", "paper"]
    options += ["--set", "use_image_head=true", "moe_lora.r=2", "lora_dropout=0.25", "--logging-steps", "1"]
    assert run("--recipe", recipe, *options) == 0
    history, config, record = read_run(tmp_path / "model")
    assert [line["learning_rate"] for line in history if "loss" in line] == [0.02]  # half of two steps
    assert (config.use_image_head, config.moe_lora["num_experts"], config.moe_lora["r"]) == (True, 1, 2)
    assert (config.moe_lora["seed"], config.moe_lora["lora_dropout"], config.etf_loss_coef) == (8, 0.25, 0.01)
    assert (record["seed"], record["preset"], record["batch_size"], record["num_train_epochs"]) == (8, "paper", 4, 0.5)


def test_recipe_names_clip_and_data(tiny_clip_folder, data, tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"clip": "./tiny_clip", "data": "./data", "image_size": 56, "max_steps": 1}))
    assert main(["train", "--recipe", str(path), "--output", str(tmp_path / "model"), "--cpu"]) == 0
    assert read_training_record(tmp_path / "model")["data"] == data


@pytest.mark.parametrize("given", [[], ["--clip", "somewhere"], ["--data", "somewhere"]])
def test_clip_and_data_are_required(tmp_path, given, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *given, "--output", str(tmp_path)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    for name in ("--clip", "--data"):
        assert (name in error.partition("required")[2]) == (name not in given)


def test_wrong_recipe(run, tmp_path, capsys):
    path = tmp_path / "wrong.json"
    path.write_text('{"lerning_rate": 1}')
    assert run("--recipe", str(path)) == 1
    assert "wrong.json has the unknown key 'lerning_rate'" in one_line_error(capsys)
    assert run("--recipe", str(tmp_path / "none.json")) == 1
    assert "none.json: No such file" in one_line_error(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "fp16=true"], "needs a GPU: choose fp32 or bf16."),
        (["--set", "lerning_rate=1"], "`--set` has the unknown key 'lerning_rate'"),
        (["--image-size", "50"], "`image_size` (50) must be a multiple of the patch size (14): use 42 or 56."),
        (["--learning-rate", "-1"], "`learning_rate` (-1.0) must be a finite number above 0."),
        (["--precision", "fp16"], "`--precision fp16` needs a GPU: choose fp32 or bf16."),
        (["--max-steps", "0"], "`max_steps` (0) must be at least 1"),
        (["--set", "hidden_act=glue"], "`hidden_act` ('glue') of `vision_config` must be an activation"),
        (["--resume-from-checkpoint"], "`resume_from_checkpoint`: no complete checkpoint in"),
        (
            ["--resume-from-checkpoint", "nowhere"],
            "`resume_from_checkpoint` (nowhere) must be a complete checkpoint-N",
        ),
        (["--validation-data", "nowhere"], "'nowhere' does not exist"),
        (["--mask-threshold", "-1"], "`mask_threshold` (-1) must be 0 or more"),
        (["--label-column", "state"], "`columns` belong to data sets of the package `datasets`"),
        (["--split", "valid"], "`split` must be one of ['test', 'train'], got 'valid'"),
    ],
)
def test_wrong_options(run, capsys, options, message):
    assert run(*options) == 1
    assert message in one_line_error(capsys)


def test_report_to_what_is_not_installed(run, capsys, monkeypatch):
    monkeypatch.setattr(recipe_steps, "get_available_reporting_integrations", lambda: ["tensorboard"])
    assert run("--report-to", "tensorboard", "wandb") == 1
    assert "`--report-to wandb` needs a package that is not installed" in one_line_error(capsys)
    assert run("--report-to", "paper") == 1
    assert "paper is not supported, only" in one_line_error(capsys)


def test_missing_data(run, tmp_path, capsys):
    assert run(data=tmp_path / "nothing") == 1
    assert "does not exist" in one_line_error(capsys)


def test_clip_that_does_not_exist(run, tmp_path, capsys):
    assert run(clip=tmp_path / "no_clip") == 1
    assert "no_clip" in one_line_error(capsys)


def test_clip_without_a_tokenizer(run, tiny_clip_folder, tmp_path, capsys):
    (tmp_path / "silent").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{tiny_clip_folder}/{name}", tmp_path / "silent")
    assert run(clip=tmp_path / "silent") == 1
    assert "has no tokenizer" in one_line_error(capsys)


def test_object_name_that_is_too_long(run, tmp_path, capsys):
    data = write_benchmark(tmp_path / "long", names=("a_very_long_name" * 5,))
    assert run(data=data) == 1
    assert "use a shorter name" in one_line_error(capsys)


def test_image_that_does_not_decode(run, tmp_path, capsys):
    broken = tmp_path / "data" / "tile" / "test" / "good" / "000.png"
    broken.write_bytes(broken.read_bytes()[:200])
    assert run("--epochs", "1") == 1
    assert "000.png" in one_line_error(capsys)


def test_validation_on_the_training_data(run, data, capsys):
    for split in ([], ["--validation-split", "test"], ["--split", "test"]):
        assert run("--validation-data", data + "/", *split) == 1
        assert "must not be the training data" in one_line_error(capsys)


def test_domain_of_the_validation(run, validation, capsys):
    # the smoothing of medical images reaches further than the grid of 4 x 4 patches
    assert run("--validation-data", validation, "--domain", "medical") == 1
    assert "`smoothing` 'medical' with kernel 9 needs a grid of at least 5 patches" in one_line_error(capsys)


@pytest.mark.parametrize(("metric", "advice"), [("pixel_ap", "choose image_auroc"), ("pixel_auroc", "image_auroc")])
def test_metric_without_masks(run, tmp_path, capsys, metric, advice):
    validation = write_benchmark(tmp_path / "plain", with_masks=False)
    assert run("--validation-data", validation, "--metric", metric) == 1
    assert advice in one_line_error(capsys)


def test_metric_without_normal_images(run, tmp_path, capsys):
    for index in range(2):
        draw(tmp_path / "spots", "tile", index, anomalous=True)
    assert run("--validation-data", str(tmp_path / "spots"), "--metric", "image_auroc") == 1
    assert "needs an object with normal and anomalous images" in one_line_error(capsys)


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--clip",
        "--data",
        "--validation-data",
        "--preset",
        "--recipe",
        "--set",
        "--resume-from-checkpoint",
        "--precision",
    ):
        assert option in text
