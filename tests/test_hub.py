"""Which files of a model folder make a repository, and which folders are refused."""

import hashlib
import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from moeclip_hf import MoECLIPConfig, MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.cli import main
from moeclip_hf.demo import DEMO_MODEL
from moeclip_hf.hub import build_repository, check_repo_id, find_weights, write_repository
from moeclip_hf.training_record import TRAINING_RECORD_KEYS, write_training_record


FIGURES = {"image_auroc": 0.75, "image_ap": 0.5, "pixel_auroc": None, "pixel_ap": None}
RESULTS = {
    "mean": FIGURES,
    "classes": {"gear": FIGURES},
    "meta": {"data": "/home/me/gears", "image_size": 56, "smoothing": "industrial"},
}
RECORD = dict.fromkeys(TRAINING_RECORD_KEYS) | {"preset": "paper", "data": "/home/me/parts", "num_images": 8}


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer):
    """What a training leaves: a model with its processor, a record and results, and what is nobody else's business."""
    folder = tmp_path / "model"
    tiny_model.config.base_model_name_or_path = str(tmp_path / "clip")
    tiny_model.save_pretrained(folder)
    MoECLIPProcessor(MoECLIPImageProcessor(size=56), tiny_tokenizer).save_pretrained(folder)
    write_training_record(folder, RECORD)
    (folder / "gears.json").write_text(json.dumps(RESULTS))
    (folder / "recipe.json").write_text('{"preset": "paper"}')
    (folder / "trainer_state.json").write_text('{"log_history": []}')
    (folder / "training_args.bin").write_bytes(pickle.dumps("secret"))
    (folder / "optimizer.pt").write_bytes(pickle.dumps("secret"))
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "model.safetensors").write_bytes(b"half")
    return folder


def make_adapters(folder, base):
    """Turns a folder with a whole model into one with adapters on the CLIP `base`."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"adapters_only": True, "base_model_name_or_path": base}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    adapters = {
        name: tensor
        for name, tensor in weights.items()
        if ".moe_lora." in name or not name.startswith(("vision_model.", "text_model."))
    }
    save_file(adapters, folder / "model.safetensors")


def as_text(files, name):
    content = files[name]
    return content.decode() if isinstance(content, bytes) else Path(content).read_text()


def test_files(folder):
    files = build_repository(folder, "user/name")
    expected = {"README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    expected |= {"training.json", "recipe.json", "results/gears.json", "modeling_moeclip.py", "processing_moeclip.py"}
    assert expected <= set(files)
    others = set(files) - expected
    assert all(name.endswith("_moeclip.py") or name == "tokenizer_config.json" for name in others), others
    assert files["model.safetensors"] == folder / "model.safetensors"  # taken as it is, not written anew


def test_weights_are_the_only_binary_file(folder):
    for name, content in build_repository(folder, "user/name").items():
        if not name.endswith(".safetensors"):
            assert b"secret" not in content
            content.decode()


def test_code_and_configuration_are_of_this_version(folder):
    (folder / "modeling_moeclip.py").write_text("raise SystemExit('old code')")
    files = build_repository(folder, "user/name")
    package = Path(__file__).parents[1] / "moeclip_hf"
    code = {name for name in files if name.endswith(".py")}
    assert "modeling_moeclip.py" in code
    assert all(files[name] == (package / name).read_bytes() for name in code)
    auto_map = json.loads(files["config.json"])["auto_map"]
    assert {"AutoConfig", "AutoModel"} <= set(auto_map)


def test_no_path_of_this_machine(folder, tmp_path):
    for name, content in build_repository(folder, "user/name").items():
        if isinstance(content, bytes):
            assert b"/home/me" not in content, name
            assert str(tmp_path).encode() not in content, name


def test_dtype_is_that_of_the_weights(folder, tmp_path):
    MoECLIPForAnomalyDetection.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    write_repository(build_repository(folder, "user/name"), tmp_path / "out")
    assert MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_written_folder_is_the_model(folder, tmp_path, tiny_model):
    files = build_repository(folder, "user/name")
    write_repository(files, tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == set(files)
    again = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in tiny_model.state_dict().items())
    MoECLIPProcessor.from_pretrained(tmp_path / "out")
    # what was pulled can be pushed again, and is the same
    second = build_repository(tmp_path / "out", "user/name")
    assert {name: as_bytes(content) for name, content in second.items()} == {
        name: as_bytes(content) for name, content in files.items()
    }


def as_bytes(content):
    return content if isinstance(content, bytes) else content.read_bytes()


def test_shards(folder, tmp_path):
    MoECLIPForAnomalyDetection.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    MoECLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path / "shards")
    weights = {name for name in build_repository(tmp_path / "shards", "user/name") if ".safetensors" in name}
    assert "model.safetensors.index.json" in weights
    assert len(weights) > 2
    (tmp_path / "shards" / min(weights - {"model.safetensors.index.json"})).unlink()
    with pytest.raises(FileNotFoundError, match="model-00001"):
        build_repository(tmp_path / "shards", "user/name")


def test_target_must_be_empty(folder, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    files = {"a.txt": b"a", "results/b.txt": b"b"}
    write_repository(files, target)
    assert (target / "results" / "b.txt").read_bytes() == b"b"
    with pytest.raises(ValueError, match="missing or empty"):
        write_repository(files, target)


def test_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_repository({"a.txt": b"a", "b.txt": tmp_path / "missing"}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---- what is refused ----


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        build_repository(folder, "user/name")


def test_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pickle \(pytorch_model\.bin\)"):
        build_repository(folder, "user/name")
    with pytest.raises(ValueError, match="no weights in safetensors"):
        MoECLIPForAnomalyDetection.from_pretrained(folder)


def test_pickled_adapters(folder, tiny_clip_folder):
    make_adapters(folder, tiny_clip_folder)
    assert MoECLIPForAnomalyDetection.from_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no weights in safetensors"):
        MoECLIPForAnomalyDetection.from_pretrained(folder)


def test_pickled_clip(folder, tiny_clip_folder):
    make_adapters(folder, tiny_clip_folder)
    (Path(tiny_clip_folder) / "model.safetensors").rename(Path(tiny_clip_folder) / "pytorch_model.bin")
    with pytest.raises(ValueError, match="tiny_clip has no weights in safetensors"):
        MoECLIPForAnomalyDetection.from_pretrained(folder)


@pytest.mark.parametrize("content", [pickle.dumps({"preset": "paper"}), b'{"preset": "paper"', b"[1]"])
def test_record_is_json(folder, content):
    (folder / "training.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"training\.json"):
        build_repository(folder, "user/name")


def test_weights_of_another_configuration(folder):
    config = MoECLIPConfig.from_pretrained(folder)
    config.share_patch_projections = False
    with pytest.raises(ValueError, match="do not match its config"):
        find_weights(folder, config)


def test_adapters_on_a_local_clip(folder, tiny_clip_folder):
    make_adapters(folder, tiny_clip_folder)
    with pytest.raises(ValueError, match=r"adapters_only=False"):
        build_repository(folder, "user/name")


def test_demo_model_is_refused_with_the_fix(tmp_path):
    with pytest.raises(ValueError, match=r"path of this machine \(\.\./tiny_clip\)"):
        build_repository(DEMO_MODEL, "user/name")
    # the fix that the message gives
    whole = tmp_path / "whole"
    MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL).save_pretrained(whole, adapters_only=False)
    MoECLIPProcessor.from_pretrained(DEMO_MODEL).save_pretrained(whole)
    assert json.loads(build_repository(whole, "user/name")["config.json"])["base_model_name_or_path"] is None


def test_adapters_on_a_clip_of_the_hub(folder):
    make_adapters(folder, "openai/clip-vit-base-patch16")
    files = build_repository(folder, "user/name")
    config = json.loads(files["config.json"])
    assert config["adapters_only"]
    assert config["base_model_name_or_path"] == "openai/clip-vit-base-patch16"
    assert "base_model: openai/clip-vit-base-patch16" in as_text(files, "README.md")
    assert "the trained part alone" in as_text(files, "README.md")


def test_without_processor(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="no processor"):
        build_repository(folder, "user/name")


def test_no_model_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        build_repository(tmp_path, "user/name")


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "user/na me", "user/..", ""])
def test_names(repo_id):
    with pytest.raises(ValueError, match=r"."):
        check_repo_id(repo_id)


# ---- results ----


def test_no_results_no_figures(folder):
    (folder / "gears.json").unlink()
    files = build_repository(folder, "user/name")
    assert not any(name.startswith("results/") for name in files)
    assert "no figure is stated" in as_text(files, "README.md")
    assert "model-index" not in as_text(files, "README.md")


def test_results_elsewhere(folder, tmp_path):
    (folder / "gears.json").rename(tmp_path / "elsewhere.json")
    files = build_repository(folder, "user/name", results=[tmp_path / "elsewhere.json"])
    assert "75.0" in as_text(files, "README.md")
    assert json.loads(files["results/elsewhere.json"])["meta"]["data"] == "gears"


def test_results_of_another_input_size(folder):
    results = RESULTS | {"meta": RESULTS["meta"] | {"image_size": 518}}
    (folder / "gears.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="of another model"):
        build_repository(folder, "user/name")


def test_results_of_other_weights(folder):
    """Results that record the weights' hash are taken for these weights alone."""
    with (folder / "model.safetensors").open("rb") as file:
        own = hashlib.file_digest(file, "sha256").hexdigest()
    for digest, is_taken in ((own, True), ("0" * 64, False)):
        meta = RESULTS["meta"] | {"model_sha256": {"model.safetensors": digest}}
        (folder / "gears.json").write_text(json.dumps(RESULTS | {"meta": meta}))
        if is_taken:
            assert "75.0" in as_text(build_repository(folder, "user/name"), "README.md")
        else:
            with pytest.raises(ValueError, match="measured on other weights"):
                build_repository(folder, "user/name")


def test_summaries_are_no_results(folder):
    """A file that sums up several data sets has their figures in place of classes: their own files count."""
    summary = RESULTS | {"meta": RESULTS["meta"] | {"benchmarks": {"mvtec": {}}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    files = build_repository(folder, "user/name")
    assert [name for name in files if name.startswith("results/")] == ["results/gears.json"]
    with pytest.raises(ValueError, match="no results of one data set"):
        build_repository(folder, "user/name", results=[folder / "summary.json"])


@pytest.mark.parametrize("value", [93.1, -0.1, "0.9", float("nan"), True])
def test_figures_must_be_figures(folder, value):
    results = RESULTS | {"mean": FIGURES | {"image_auroc": value}}
    (folder / "gears.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="image_auroc of 'mean'"):
        build_repository(folder, "user/name")


def test_no_results_file(folder):
    with pytest.raises(ValueError, match="holds no results"):
        build_repository(folder, "user/name", results=[folder / "config.json"])
    with pytest.raises(FileNotFoundError):
        build_repository(folder, "user/name", results=[folder / "missing.json"])


def test_results_of_one_name(folder, tmp_path):
    shutil.copy(folder / "gears.json", tmp_path / "gears.json")
    with pytest.raises(ValueError, match=r"called gears\.json"):
        build_repository(folder, "user/name", results=[folder / "gears.json", tmp_path / "gears.json"])


# ---- the command ----


def test_dry_run(folder, tmp_path, capsys):
    image = tmp_path / "gear.png"
    Image.new("RGB", (80, 60), "grey").save(image)
    arguments = ["--dry-run", str(tmp_path / "out"), "--example", str(image), "--object-name", "gear"]
    assert main(["push", str(folder), "user/name", *arguments]) == 0
    printed = capsys.readouterr()
    assert "results/gears.json" in printed.out.splitlines()
    assert "would be sent to user/name" in printed.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "(example.png)" in card
    picture = Image.open(tmp_path / "out" / "example.png")
    assert picture.width > 2 * 300
    assert sorted(printed.out.split()) == sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    )


def test_drawn_example(folder, tmp_path):
    """The model's map of the drawn leaf, not another picture: the same each time, with the leaf at its left."""
    assert main(["push", str(folder), "user/name", "--dry-run", str(tmp_path / "a"), "--example", "drawn"]) == 0
    assert main(["push", str(folder), "user/name", "--dry-run", str(tmp_path / "b"), "--example", "drawn"]) == 0
    pictures = [(tmp_path / name / "example.png").read_bytes() for name in ("a", "b")]
    assert pictures[0] == pictures[1]
    assert len(Image.open(io.BytesIO(pictures[0])).getcolors(maxcolors=10**6)) > 100
    assert "tree leaf: the picture" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--example", "{image}"], "needs --object-name"),
        (["--object-name", "gear"], "belongs to --example"),
        (["--example", "{text}", "--object-name", "gear"], "no picture"),
        (["--example", "missing.png", "--object-name", "gear"], "missing.png: No such file"),
        (["--results", "missing.json"], "missing.json: No such file"),
    ],
)
def test_wrong_arguments_are_one_line(folder, tmp_path, capsys, arguments, message):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    places = {"image": tmp_path / "image.png", "text": folder / "config.json"}
    arguments = [argument.format(**places) for argument in arguments]
    assert main(["push", str(folder), "user/name", "--dry-run", str(tmp_path / "out"), *arguments]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.splitlines()[-1].startswith("moeclip: error: ")
    assert not (tmp_path / "out").exists()


def test_own_card_is_not_taken_and_said_so(folder, tmp_path, capsys):
    (folder / "README.md").write_text("# My own words\n")
    assert main(["push", str(folder), "user/name", "--dry-run", str(tmp_path / "out")]) == 0
    assert "is not taken" in capsys.readouterr().err
    assert "My own words" not in (tmp_path / "out" / "README.md").read_text()
    assert (folder / "README.md").read_text() == "# My own words\n"
