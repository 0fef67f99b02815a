"""Inputs that the model takes as they are, and results that follow the paper's formulas step by step."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor
from moeclip_hf.processing_moeclip import resize_anomaly_map, smooth_anomaly_logits
from moeclip_hf.prompts_moeclip import build_prompts


@pytest.fixture
def processor(tiny_tokenizer) -> MoECLIPProcessor:
    return MoECLIPProcessor(MoECLIPImageProcessor(size=56), tiny_tokenizer)


def pictures(number: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)) for i in range(number)]


def random_outputs(batch_size=3, grid=7, dtype=torch.float32) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        anomaly_logits=(50 * torch.randn(batch_size, grid, grid, generator=generator)).to(dtype),
        image_score=torch.rand(batch_size, generator=generator).to(dtype),
    )


# --- inputs -------------------------------------------------------------------------------------------------------


def test_each_distinct_name_is_encoded_once(processor):
    inputs = processor(images=pictures(4), object_names=["nut", "cup", "nut", "pill"])
    assert inputs["input_ids"].shape[:2] == (3, 16)
    assert inputs["object_ids"].tolist() == [0, 1, 0, 2]
    assert inputs["prompt_state"].tolist() == [0] * 6 + [1] * 10
    assert inputs["pixel_values"].shape == (4, 3, 56, 56)
    assert {inputs[key].dtype for key in ("input_ids", "attention_mask", "object_ids", "prompt_state")} == {
        torch.int64
    }


def test_one_name_for_all_pictures(processor):
    inputs = processor(images=pictures(3), object_names="nut")
    assert inputs["input_ids"].shape[:2] == (1, 16)
    assert inputs["object_ids"].tolist() == [0, 0, 0]


def test_prompts_are_whole_and_padded_to_the_longest(processor, tiny_tokenizer):
    inputs = processor(object_names=["nut", "a cup"])
    longest = 0
    for name, ids, attention in zip(["nut", "a cup"], inputs["input_ids"], inputs["attention_mask"], strict=True):
        for prompt, prompt_ids, prompt_attention in zip(build_prompts(name)[0], ids, attention, strict=True):
            expected = tiny_tokenizer(prompt)["input_ids"]
            longest = max(longest, len(expected))
            assert prompt_ids[: len(expected)].tolist() == expected
            assert prompt_attention.tolist() == [1] * len(expected) + [0] * (len(prompt_ids) - len(expected))
            assert expected[-1] == tiny_tokenizer.eos_token_id
    assert inputs["input_ids"].shape[-1] == longest


def test_names_alone(processor):
    inputs = processor(object_names=["nut", "cup", "nut"])
    assert set(inputs) == {"input_ids", "attention_mask", "prompt_state"}
    assert inputs["input_ids"].shape[:2] == (2, 16)


def test_pictures_alone(processor):
    assert set(processor(images=pictures(1))) == {"pixel_values"}


def test_masks(processor):
    images = pictures(3)
    masks = [Image.new("L", images[0].size, 255), None, np.zeros((22, 30))]
    labels = processor(images=images, object_names="nut", masks=masks)["mask_labels"]
    assert labels.shape == (3, 56, 56)
    assert [row.unique().tolist() for row in labels] == [[1], [-100], [0]]


def test_columns_of_a_data_set(processor):
    """What `datasets` returns for a column is a sequence, but no list."""
    pixels = [np.full((9, 7), value, dtype=np.uint8) for value in (10, 200)]
    columns = {
        "image": [Image.fromarray(grey) for grey in pixels],
        "mask": [None, Image.fromarray(pixels[1])],
        "object_name": ["tile", "screw"],
    }
    features = {"image": datasets.Image(), "mask": datasets.Image(), "object_name": datasets.Value("string")}
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    found = processor(images=dataset["image"], masks=dataset["mask"], object_names=dataset["object_name"])
    expected = processor(images=columns["image"], masks=columns["mask"], object_names=columns["object_name"])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_numpy_and_image_arguments(processor):
    inputs = processor(images=pictures(1), object_names="nut", return_tensors="np", size=28)
    assert all(isinstance(value, np.ndarray) for value in inputs.values())
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)


def test_model_takes_the_inputs_as_they_are(processor, tiny_model):
    images = pictures(2)
    masks = [np.ones((20, 30)), None]
    outputs = tiny_model.eval()(**processor(images=images, object_names=["nut", "cup"], masks=masks))
    assert outputs.anomaly_logits.shape == (2, 4, 4)
    assert outputs.segmentation_loss.isfinite()
    sizes = [(image.height, image.width) for image in images]
    results = processor.post_process_anomaly_detection(outputs, target_sizes=sizes)
    assert [tuple(result["anomaly_map"].shape) for result in results] == sizes


def test_name_longer_than_the_context_is_named_with_both_numbers(processor):
    with pytest.raises(
        ValueError, match="holds 'x{60}', whose longest prompt has 82 tokens, .* at most 64: use a"
    ) as error:
        processor(object_names=["nut", "x" * 60])
    assert "\n" not in str(error.value)


def test_longest_name_that_fits(processor):
    name = "x" * (64 - 2 - len("a photo of a with damage.".replace(" ", "")))
    assert processor(object_names=name)["input_ids"].shape == (1, 16, 64)
    with pytest.raises(ValueError, match="has 65 tokens"):
        processor(object_names=name + "x")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "give `images`, `object_names` or both"),
        ({"object_names": []}, "`object_names` is empty"),
        ({"object_names": ["nut", " "]}, "`object_names` holds an empty name"),
        ({"object_names": ["nut", None]}, "`object_names` must be strings"),
        ({"object_names": [["nut"]]}, "`object_names` must be strings"),
        ({"object_names": "nut", "masks": [None]}, "`masks` need their `images`"),
        ({"images": pictures(3), "object_names": ["nut", "cup"]}, "`object_names` has 2 entries for 3 images"),
        ({"images": pictures(1), "object_names": ["nut", "cup"]}, "`object_names` has 2 entries for 1 images"),
    ],
)
def test_bad_calls_are_one_line_errors(processor, kwargs, message):
    with pytest.raises(ValueError, match=message) as error:
        processor(**kwargs)
    assert "\n" not in str(error.value)


# --- saving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [MoECLIPProcessor, AutoProcessor])
def test_save_and_load(processor, tmp_path, loader):
    processor.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is MoECLIPProcessor
    assert type(loaded.image_processor) is MoECLIPImageProcessor
    expected = processor(images=pictures(2), object_names=["nut", "cup"])
    found = loaded(images=pictures(2), object_names=["nut", "cup"])
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    with pytest.raises(ValueError, match="at most 64"):
        loaded(object_names="x" * 60)


FOREIGN_PROCESS = """
import sys
sys.modules["moeclip_hf"] = None  # as if it were not installed
import torch
from transformers import AutoImageProcessor, AutoProcessor

processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
inputs = processor(images=torch.arange(300).reshape(3, 10, 10) % 256, object_names="nut")
assert inputs["pixel_values"].shape == (1, 3, 56, 56), inputs["pixel_values"].shape
assert type(processor.image_processor).__name__ == "MoECLIPImageProcessor"
assert AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True).size["height"] == 56
processor.save_pretrained(sys.argv[2])
AutoProcessor.from_pretrained(sys.argv[2], trust_remote_code=True)
"""


def test_saved_folder_works_without_the_package(processor, tmp_path):
    processor.save_pretrained(tmp_path / "first")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    command = [sys.executable, "-c", FOREIGN_PROCESS, str(tmp_path / "first"), str(tmp_path / "second")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# --- smoothing and resizing ---------------------------------------------------------------------------------------


def slow_blur(grid_map: np.ndarray, kernel: int, sigma: float) -> np.ndarray:
    """The Gaussian written as a double sum, indices mirrored at the borders without repeating the edge."""

    def mirror(index: int, length: int) -> int:
        index = abs(index)
        return 2 * (length - 1) - index if index >= length else index

    radius = kernel // 2
    height, width = grid_map.shape
    weights = {
        (dy, dx): math.exp(-(dy**2 + dx**2) / (2 * sigma**2))
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
    }
    total = sum(weights.values())
    blurred = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for (dy, dx), weight in weights.items():
                blurred[y, x] += weight / total * grid_map[mirror(y + dy, height), mirror(x + dx, width)]
    return blurred


def slow_resize(grid_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with the corner values on the corner pixels."""
    resized = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = row * (grid_map.shape[0] - 1) / (size[0] - 1) if size[0] > 1 else 0
            x = column * (grid_map.shape[1] - 1) / (size[1] - 1) if size[1] > 1 else 0
            top, left = min(int(y), grid_map.shape[0] - 2), min(int(x), grid_map.shape[1] - 2)
            corners = grid_map[top : top + 2, left : left + 2]
            resized[row, column] = np.array([1 - y + top, y - top]) @ corners @ np.array([1 - x + left, x - left])
    return resized


SMOOTHINGS = [("industrial", 7, 1.0), ("medical", 9, 1.5), ((3, 0.5), 3, 0.5), ((1, 2.0), 1, 2.0)]


@pytest.mark.parametrize(("smoothing", "kernel", "sigma"), SMOOTHINGS)
@pytest.mark.parametrize("grid", [5, 8])
def test_blur_is_the_double_sum(smoothing, kernel, sigma, grid):
    logits = random_outputs(batch_size=2, grid=grid).anomaly_logits
    blurred = smooth_anomaly_logits(logits, smoothing)
    for found, given in zip(blurred, logits.double().numpy(), strict=True):
        np.testing.assert_allclose(found.numpy(), slow_blur(given, kernel, sigma), atol=1e-4)


def test_blur_keeps_constants_and_none_keeps_everything():
    constant = torch.full((1, 9, 9), 1206.0)
    torch.testing.assert_close(smooth_anomaly_logits(constant, "medical"), constant)
    logits = random_outputs().anomaly_logits
    assert torch.equal(smooth_anomaly_logits(logits, None), logits)


@pytest.mark.parametrize("size", [(11, 11), (4, 23), (7, 7), (1, 1)])
def test_resizing_puts_corners_on_corners(size):
    maps = random_outputs(batch_size=2).anomaly_logits
    resized = resize_anomaly_map(maps, size)
    assert resized.shape == (2, *size)
    for found, given in zip(resized, maps.double().numpy(), strict=True):
        np.testing.assert_allclose(found.numpy(), slow_resize(given, size), atol=1e-4)


def test_resizing_to_one_number_is_a_square():
    maps = random_outputs().anomaly_logits
    assert torch.equal(resize_anomaly_map(maps, 10), resize_anomaly_map(maps, (10, 10)))


@pytest.mark.parametrize(("smoothing", "smallest"), [("industrial", 4), ("medical", 5), ((5, 1.0), 3)])
def test_kernel_beyond_the_grid_is_an_error(smoothing, smallest):
    smooth_anomaly_logits(torch.zeros(1, smallest, smallest), smoothing)
    with pytest.raises(ValueError, match=f"needs a grid of at least {smallest} patches a side, got {smallest - 1}"):
        smooth_anomaly_logits(torch.zeros(1, smallest - 1, smallest), smoothing)


@pytest.mark.parametrize(
    "smoothing", ["Industrial", (4, 1.0), (3, 0.0), (3, -1), (-3, 1.0), (3.5, 1), 3, (3,), ("a", 1)]
)
def test_unknown_smoothing_is_an_error(smoothing):
    with pytest.raises(ValueError, match=r"`smoothing` must be 'industrial', 'medical', \(odd kernel size"):
        smooth_anomaly_logits(torch.zeros(1, 9, 9), smoothing)


# --- post-processing ----------------------------------------------------------------------------------------------


def test_maps_are_blurred_then_resized_straight_from_the_grid(processor):
    outputs = random_outputs()
    sizes = [(30, 41), (5, 9), (56, 56)]
    for result, logits, size in zip(
        processor.post_process_anomaly_detection(outputs, target_sizes=sizes),
        outputs.anomaly_logits.double().numpy(),
        sizes,
        strict=True,
    ):
        assert result["anomaly_map"].dtype == torch.float32
        expected = slow_resize(slow_blur(logits, 7, 1.0), size)
        np.testing.assert_allclose(result["anomaly_map"].numpy(), expected, atol=1e-4)


def test_one_sum_of_maps_equals_twelve_maps_one_by_one(processor):
    """The paper blurs and resizes each of the maps and adds them up; the steps are linear."""
    generator = torch.Generator().manual_seed(3)
    normal, anomalous = torch.rand(2, 12, 1, 7, 7, generator=generator)
    maps = (100 * anomalous + 1 - 100 * normal) / 2  # (12, 1, 7, 7)
    expected = sum(slow_resize(slow_blur(one[0].double().numpy(), 9, 1.5), (20, 20)) for one in maps)
    outputs = SimpleNamespace(anomaly_logits=maps.sum(0), image_score=torch.tensor([0.5]))
    result = processor.post_process_anomaly_detection(outputs, target_sizes=[(20, 20)], smoothing="medical")[0]
    np.testing.assert_allclose(result["anomaly_map"].numpy(), expected, atol=1e-3)


def test_without_sizes_maps_stay_on_the_grid(processor):
    outputs = random_outputs()
    results = processor.post_process_anomaly_detection(outputs, smoothing=None)
    assert all(torch.equal(r["anomaly_map"], m) for r, m in zip(results, outputs.anomaly_logits, strict=True))
    assert [result["score"] for result in results] == outputs.image_score.tolist()
    assert all(set(result) == {"anomaly_map", "score"} for result in results)


def test_thresholds_count_from_the_value_itself(processor):
    outputs = SimpleNamespace(
        anomaly_logits=torch.tensor([[[-1.0, 0.0], [2.0, 3.0]]] * 2), image_score=torch.tensor([0.5, 0.25])
    )
    results = processor.post_process_anomaly_detection(outputs, smoothing=None, threshold=0.5, mask_threshold=2.0)
    assert [result["label"] for result in results] == [True, False]
    assert results[0]["mask"].tolist() == [[False, False], [True, True]]
    assert "mask" not in processor.post_process_anomaly_detection(outputs, smoothing=None, threshold=0.0)[0]
    assert "label" not in processor.post_process_anomaly_detection(outputs, smoothing=None, mask_threshold=0.0)[0]


def test_zero_thresholds_count(processor):
    outputs = SimpleNamespace(anomaly_logits=torch.zeros(1, 2, 2), image_score=torch.zeros(1))
    result = processor.post_process_anomaly_detection(outputs, smoothing=None, threshold=0, mask_threshold=0)[0]
    assert result["label"]
    assert result["mask"].all()


def test_it_depends_on_its_arguments_alone(processor):
    outputs = random_outputs()
    bare = MoECLIPProcessor.__new__(MoECLIPProcessor)
    expected = processor.post_process_anomaly_detection(outputs, target_sizes=[(9, 9)] * 3, threshold=0.1)
    found = bare.post_process_anomaly_detection(outputs, target_sizes=[(9, 9)] * 3, threshold=0.1)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["anomaly_map"], other["anomaly_map"])
        assert (one["score"], one["label"]) == (other["score"], other["label"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_blurred_in_float32(processor, dtype):
    outputs = random_outputs(dtype=dtype)
    result = processor.post_process_anomaly_detection(outputs)[0]
    assert result["anomaly_map"].dtype == torch.float32
    expected = slow_blur(outputs.anomaly_logits[0].double().numpy(), 7, 1.0)
    np.testing.assert_allclose(result["anomaly_map"].numpy(), expected, atol=1e-4)


def test_results_hold_no_graph(processor):
    outputs = random_outputs()
    outputs.anomaly_logits.requires_grad_()
    outputs.image_score.requires_grad_()
    assert not processor.post_process_anomaly_detection(outputs)[0]["anomaly_map"].requires_grad


def test_sizes_as_tensor(processor):
    results = processor.post_process_anomaly_detection(random_outputs(), target_sizes=torch.tensor([[8, 9]] * 3))
    assert results[2]["anomaly_map"].shape == (8, 9)


@pytest.mark.parametrize("sizes", [[(0, 5)] * 3, [(5, 5, 3)] * 3, [(2.5, 5)] * 3])
def test_sizes_that_are_no_sizes_are_errors(processor, sizes):
    with pytest.raises(ValueError, match="a size must be height and width in pixels"):
        processor.post_process_anomaly_detection(random_outputs(), target_sizes=sizes)


def test_number_of_sizes_must_be_that_of_images(processor):
    with pytest.raises(ValueError, match="`target_sizes` has 2 entries for 3 images"):
        processor.post_process_anomaly_detection(random_outputs(), target_sizes=[(5, 5)] * 2)


def test_processor_of_a_clip_reads_its_tokenizer_and_the_models_sizes(tiny_clip_folder):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=70, moe_lora=None)
    processor = MoECLIPProcessor.from_clip(tiny_clip_folder, model.config)
    inputs = processor(images=Image.new("RGB", (9, 5)), object_names="hex nut")
    assert inputs["pixel_values"].shape == (1, 3, 70, 70)
    assert processor.tokenizer.model_max_length == model.config.text_config.max_position_embeddings
    assert model(**inputs).image_score.shape == (1,)


def test_clip_without_a_tokenizer_is_refused(tmp_path, tiny_clip):
    tiny_clip.save_pretrained(tmp_path)
    config = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora=None).config
    with pytest.raises(ValueError, match="has no tokenizer"):
        MoECLIPProcessor.from_clip(tmp_path, config)
