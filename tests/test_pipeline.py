"""`pipeline("zero-shot-anomaly-detection")`: every kind of picture, batches, names, thresholds, and saved repositories."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from conftest import randomize_adapters
from core_environment import ROOT, declared, make_environment
from PIL import Image
from regions_reference import flood_fill
from transformers import pipeline

import moeclip_hf.pipeline_moeclip
from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.pipeline_moeclip import ZeroShotAnomalyDetectionPipeline


TASK = "zero-shot-anomaly-detection"


def draw(width=60, height=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def processor(tiny_tokenizer):
    return MoECLIPProcessor(MoECLIPImageProcessor(size=56), tiny_tokenizer)


@pytest.fixture
def pipe(tiny_model, processor):
    return pipeline(TASK, model=tiny_model, processor=processor, device="cpu")


@pytest.fixture
def by_hand(tiny_model, processor):
    """The result of one picture as the README computes it, without the pipeline."""

    def inspect(image, object_name="object", **options):
        with torch.no_grad():
            outputs = tiny_model(**processor(images=image, object_names=object_name))
        sizes = [(image.height, image.width)]
        return processor.post_process_anomaly_detection(outputs, target_sizes=sizes, **options)[0]

    return inspect


@pytest.fixture
def web_folder(tmp_path):
    """A folder and the address under which a server on this machine offers its files."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def assert_same(result, expected):
    assert result.keys() == expected.keys()
    assert result["score"] == pytest.approx(expected["score"], abs=1e-6)
    torch.testing.assert_close(result["anomaly_map"], expected["anomaly_map"], rtol=1e-5, atol=1e-5)


# Kinds of pictures


def test_picture_path_address_array_and_tensor_are_the_same(pipe, by_hand, web_folder):
    image, (folder, address) = draw(), web_folder
    image.save(folder / "part.png")
    expected = by_hand(image, "bolt")
    assert expected["anomaly_map"].shape == (40, 60)
    array = np.array(image)
    kinds = [image, folder / "part.png", str(folder / "part.png"), f"{address}/part.png", array]
    kinds += [torch.from_numpy(array).permute(2, 0, 1)]
    for kind in kinds:
        assert_same(pipe(kind, object_name="bolt"), expected)


def test_map_lies_on_the_upright_picture(pipe, by_hand, tmp_path):
    image, exif = draw(), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "sideways.png", exif=exif)
    result = pipe(tmp_path / "sideways.png")
    assert result["anomaly_map"].shape == (60, 40)
    assert_same(result, by_hand(image.transpose(Image.Transpose.ROTATE_270)))


def test_batch_array_is_several_pictures(pipe, by_hand):
    images = [draw(seed=seed) for seed in range(3)]
    results = pipe(np.stack([np.asarray(image) for image in images]))
    assert len(results) == 3
    for result, image in zip(results, images, strict=True):
        assert_same(result, by_hand(image))


@pytest.mark.parametrize("container", [list, tuple])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_batches_of_all_sizes_and_names(pipe, by_hand, batch_size, container):
    sizes = [(60, 40), (33, 80), (56, 56), (200, 20), (60, 40)]
    images = [draw(*size, seed=seed) for seed, size in enumerate(sizes)]
    names = ["bolt", "nut", "bolt", "leaf", "nut"]
    results = pipe(container(images), object_name=names, batch_size=batch_size)
    assert len(results) == 5
    for result, image, name in zip(results, images, names, strict=True):
        assert_same(result, by_hand(image, name))
    for result, image in zip(pipe(images, object_name="leaf", batch_size=batch_size), images, strict=True):
        assert_same(result, by_hand(image, "leaf"))


def test_rows_of_a_data_set_and_generators(pipe, by_hand):
    images, names = [draw(seed=seed) for seed in range(3)], ["bolt", "nut", "bolt"]
    rows = [{"image": image, "object_name": name, "label": 0} for image, name in zip(images, names, strict=True)]
    expected = [by_hand(image, name) for image, name in zip(images, names, strict=True)]
    for results in (pipe(rows), pipe(row for row in rows), pipe((image for image in images), object_name=names)):
        for result, wanted in zip(results, expected, strict=True):
            assert_same(result, wanted)
    assert_same(pipe(rows[1]), expected[1])
    assert_same(pipe(images[1], object_name=["nut"]), expected[1])
    assert_same(pipe({"image": images[1]}, object_name="nut"), expected[1])


def test_object_is_the_name_of_what_has_none(pipe, by_hand):
    assert_same(pipe(draw()), by_hand(draw(), "object"))
    assert pipe(draw())["score"] != pipe(draw(), object_name="bolt")["score"]


# Results


def test_only_what_is_asked_for(pipe):
    image, plain = draw(), {"score", "anomaly_map"}
    assert set(pipe(image)) == plain
    assert set(pipe(image, threshold=0.5)) == plain | {"label"}
    assert set(pipe(image, mask_threshold=0.0)) == plain | {"mask", "boxes"}
    assert 0 <= pipe(image)["score"] <= 1
    assert pipe(image)["anomaly_map"].dtype == torch.float32


def test_label_mask_and_boxes(pipe):
    image = draw(90, 70)
    score, anomaly_map = (pipe(image)[name] for name in ("score", "anomaly_map"))
    assert pipe(image, threshold=score)["label"] is True
    assert pipe(image, threshold=score + 1e-6)["label"] is False
    for share in (0.5, 0.9, 0.99):
        limit = float(anomaly_map.quantile(share))
        result = pipe(image, mask_threshold=limit)
        assert torch.equal(result["mask"], anomaly_map >= limit)
        labels, count = flood_fill(result["mask"].numpy())
        assert len(result["boxes"]) == count
        found = {(region["box"], region["score"]) for region in result["boxes"]}
        for number in range(1, count + 1):
            ys, xs = (labels == number).nonzero()
            box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            assert (box, float(anomaly_map.numpy()[labels == number].max())) in found
        scores = [region["score"] for region in result["boxes"]]
        assert scores == sorted(scores, reverse=True)
    assert pipe(image, mask_threshold=float(anomaly_map.max()) + 1)["boxes"] == []


def test_smoothing(pipe, by_hand):
    for smoothing in ("industrial", None, (3, 0.5)):
        assert_same(pipe(draw(), smoothing=smoothing), by_hand(draw(), smoothing=smoothing))
    assert not torch.equal(pipe(draw())["anomaly_map"], pipe(draw(), smoothing=None)["anomaly_map"])


def test_defaults_are_given_once_and_overridden_by_a_call(tiny_model, processor, by_hand):
    pipe = pipeline(
        TASK, model=tiny_model, processor=processor, device="cpu",
        object_name="nut", smoothing=None, threshold=0.0, mask_threshold=0.0, batch_size=2,
    )  # fmt: skip
    expected = by_hand(draw(), "nut", smoothing=None, threshold=0.0, mask_threshold=0.0)
    first, second = pipe([draw(), draw()])
    assert_same({**first, "boxes": None}, {**expected, "boxes": None})
    assert first["score"] == second["score"]
    assert set(pipe(draw(), threshold=None, mask_threshold=None)) == {"score", "anomaly_map"}
    assert_same(
        pipe(draw(), object_name="bolt", threshold=None, mask_threshold=None), by_hand(draw(), "bolt", smoothing=None)
    )


# The text tower


def count_text_passes(model):
    """A list that grows by the number of prompts of each pass through the text tower."""
    passes = []
    model.text_model.register_forward_hook(
        lambda module, args, kwargs, output: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return passes


def test_a_name_is_read_once_in_all_calls(pipe, tiny_model):
    passes = count_text_passes(tiny_model)
    pipe([draw(seed=seed) for seed in range(6)], object_name=["bolt", "nut"] * 3, batch_size=2)
    assert passes == [16, 16]
    pipe(draw(), object_name="nut")
    assert passes == [16, 16]
    pipe(draw(), object_name="leaf")
    assert passes == [16, 16, 16]


def test_remembered_names_have_a_limit(pipe, tiny_model, monkeypatch):
    monkeypatch.setattr(moeclip_hf.pipeline_moeclip, "MAX_REMEMBERED_OBJECTS", 2)
    passes = count_text_passes(tiny_model)
    names = ["a", "b", "c", "d"]
    together = pipe([draw()] * 4, object_name=names, batch_size=4)
    assert len(passes) == 4
    alone = [pipe(draw(), object_name=name) for name in names]
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
    assert len(passes) > 4


def test_exchanged_adapters_are_used_at_once(pipe, tiny_model, by_hand):
    before = pipe(draw(), object_name="bolt")
    randomize_adapters(tiny_model, seed=5)
    after = pipe(draw(), object_name="bolt")
    assert after["score"] != before["score"]
    assert_same(after, by_hand(draw(), "bolt"))


def test_model_in_training_mode_is_evaluated(tiny_model, processor, by_hand):
    tiny_model.train()
    pipe = pipeline(TASK, model=tiny_model, processor=processor, device="cpu")
    assert not tiny_model.training
    assert_same(pipe(draw()), by_hand(draw()))


# Errors


def test_errors_say_what_to_do(pipe, tmp_path, web_folder):
    folder, address = web_folder
    (folder / "page.html").write_text("<html>")
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(ValueError, match="`images` is empty: give at least one"):
        pipe([])
    with pytest.raises(ValueError, match="has no `image`, only 'object_name', 'picture'"):
        pipe({"picture": draw(), "object_name": "bolt"})
    with pytest.raises(
        ValueError, match="`object_name` has 3 names for 2 pictures: give one for all or one a picture"
    ):
        pipe([draw(), draw()], object_name=["a", "b", "c"])
    with pytest.raises(ValueError, match="`object_name` has 2 names for 1 pictures"):
        pipe(draw(), object_name=["a", "b"])
    with pytest.raises(ValueError, match="empty name"):
        pipe(draw(), object_name=" ")
    with pytest.raises(FileNotFoundError, match="missing.png' does not exist"):
        pipe(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="notes.txt' is not a picture"):
        pipe([draw(), tmp_path / "notes.txt"])
    for page in ("page.html", "missing.png"):
        with pytest.raises(ValueError, match=f"{address}/{page}' is not a picture"):
            pipe(f"{address}/{page}")
    with pytest.raises(ValueError, match="infinite values or NaN"):
        pipe(np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="`smoothing` must be 'industrial', 'medical'"):
        pipe(draw(), smoothing="strong")
    with pytest.raises(TypeError, match="Unknown argument 'treshold'.*threshold"):
        pipe(draw(), treshold=0.5)
    assert pipe(draw())["score"] >= 0


def test_loaded_model_needs_its_processor(tiny_model):
    with pytest.raises(Exception, match="processor"):
        pipeline(TASK, model=tiny_model)


def test_names_of_all_calls_are_one_name(tiny_model, processor):
    with pytest.raises(TypeError, match="`object_name` must be one name here"):
        pipeline(TASK, model=tiny_model, processor=processor, object_name=["a", "b"])


# Repositories


@pytest.fixture
def adapters_folder(tiny_clip_folder, tmp_path):
    """A repository as training writes it, without the CLIP, and no pipeline involved."""
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4, "lora_alpha": 8})
    randomize_adapters(model)
    model.save_pretrained(tmp_path / "adapters", adapters_only=True)
    MoECLIPProcessor.from_clip(tiny_clip_folder, model.config).save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


@pytest.fixture
def full_folder(adapters_folder, tmp_path):
    """The same model, saved by a pipeline with the CLIP."""
    pipe = pipeline(TASK, model=str(adapters_folder), device="cpu")
    pipe.save_pretrained(tmp_path / "full", adapters_only=False)
    return tmp_path / "full"


def test_package_loads_repositories_without_their_code(adapters_folder, full_folder):
    """Both configurations name the code that came with them; the installed package stands in for it."""
    results = []
    for folder in (adapters_folder, full_folder):
        assert TASK in json.loads((folder / "config.json").read_text())["custom_pipelines"]
        pipe = pipeline(TASK, model=str(folder), device="cpu")
        assert type(pipe) is ZeroShotAnomalyDetectionPipeline
        results.append(pipe(draw(), object_name="bolt"))
    assert torch.equal(results[0]["anomaly_map"], results[1]["anomaly_map"])


def test_save_pretrained_is_complete(full_folder, adapters_folder, tmp_path):
    names = {path.name for path in full_folder.iterdir()}
    code = {path.name for path in (ROOT / "moeclip_hf").glob("*_moeclip.py")}
    weights = {"config.json", "model.safetensors"}
    assert names == code | weights | {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names == {path.name for path in adapters_folder.iterdir()}
    pipeline(TASK, model=str(adapters_folder), device="cpu").save_pretrained(tmp_path / "again")
    again = tmp_path / "again"
    assert names == {path.name for path in again.iterdir()}
    for name in code | {"model.safetensors"}:
        assert (again / name).read_bytes() == (adapters_folder / name).read_bytes(), name


STRANGER = """
import importlib.util, json, sys
from transformers import pipeline
for name in ("moeclip_hf", "datasets", "scipy", "sklearn", "pandas", "torchvision"):
    assert importlib.util.find_spec(name) is None, name

image, *folders = sys.argv[1:]
for number, folder in enumerate(folders):
    pipe = pipeline("zero-shot-anomaly-detection", model=folder, trust_remote_code=True, device="cpu")
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    json.loads(pipe.model.config.to_json_string())
    result = pipe([image], object_name="bolt", threshold=0.5, mask_threshold=0.0)[0]
    maps = [result["anomaly_map"].tolist()]
    pipe.save_pretrained(folder + "-again")
    again = pipeline(model=folder + "-again", trust_remote_code=True, device="cpu")
    maps.append(again(image, object_name="bolt")["anomaly_map"].tolist())
    print(json.dumps([result["score"], result["label"], result["boxes"], maps]))
"""


@pytest.fixture(scope="module")
def core_python(tmp_path_factory):
    """Interpreter of an environment without the package, with what it requires and nothing else."""
    return make_environment(tmp_path_factory.mktemp("core"), [str(one) for one in declared()[""]])


def test_strangers_load_repositories_with_their_code(core_python, adapters_folder, full_folder, tmp_path):
    """A process that cannot import the package, and little else, gets the very same numbers."""
    draw().save(tmp_path / "part.png")
    expected = pipeline(TASK, model=str(full_folder), device="cpu")(
        tmp_path / "part.png", object_name="bolt", threshold=0.5, mask_threshold=0.0
    )
    arguments = [tmp_path / "part.png", adapters_folder, full_folder]
    done = subprocess.run(
        [core_python, "-I", "-c", STRANGER, *map(str, arguments)],
        env=os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        score, label, boxes, maps = json.loads(line)
        assert (score, label) == (expected["score"], expected["label"])
        assert [{**box, "box": tuple(box["box"])} for box in boxes] == expected["boxes"]
        assert all(torch.equal(torch.tensor(found), expected["anomaly_map"]) for found in maps)


def test_import_of_the_package_is_enough(full_folder, tmp_path):
    draw().save(tmp_path / "part.png")
    code = "import moeclip_hf, sys; from transformers import pipeline\n"
    code += f"print(type(pipeline({TASK!r}, model=sys.argv[1], device='cpu')).__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(full_folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "moeclip_hf.pipeline_moeclip"
