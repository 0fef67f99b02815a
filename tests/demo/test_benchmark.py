"""The procedural benchmark: what is written, that it repeats, that its masks are exact, and how hard it is."""

import numpy as np
import pytest
import torch
from PIL import Image

from moeclip_hf.demo import draw_example
from moeclip_hf.demo.benchmark import TEST_CATEGORIES, TRAIN_CATEGORIES, draw_sample, drawing, write_benchmark
from moeclip_hf.demo.benchmark.surface_defects import SURFACE_DEFECTS
from moeclip_hf.demo.benchmark.writing import sample_plan
from moeclip_hf.demo.heuristic import GRIDS, local_contrast


CATEGORIES = TRAIN_CATEGORIES + TEST_CATEGORIES


def kinds(categories):
    return {defect for category in categories for defect in category.defects}


def as_arrays(pair):
    return tuple(np.asarray(image, dtype=np.int32) for image in pair)


def test_halves_share_no_name_and_one_defect_is_unseen():
    names = [category.name for category in CATEGORIES]
    assert len(set(names)) == len(names)
    assert len(TRAIN_CATEGORIES) >= 8
    assert len(TEST_CATEGORIES) == len(TRAIN_CATEGORIES)
    textures = [category for category in CATEGORIES if "textures" in category.paint.__module__]
    assert 8 <= len(textures) <= len(CATEGORIES) - 8
    assert len(kinds(CATEGORIES)) >= 6
    assert "bent_part" in kinds(TEST_CATEGORIES) - kinds(TRAIN_CATEGORIES)
    train_words, test_words = (
        {word for category in half for word in category.name.split("_")}
        for half in (TRAIN_CATEGORIES, TEST_CATEGORIES)
    )
    assert not train_words & test_words


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_mask_is_where_the_picture_changed(category):
    """The same number with and without a defect differs inside the mask and is the same outside."""
    good, empty = as_arrays(draw_sample(category, 3, 5))
    assert good.shape == (224, 224, 3)
    assert not empty.any()
    for defect in category.defects:
        flawed, mask = as_arrays(draw_sample(category, 3, 5, defect))
        change = np.abs(flawed - good).max(-1)
        assert set(np.unique(mask)) == {0, 255}
        assert change[mask == 0].max() <= 11, defect
        assert (change[mask > 0] > 10).mean() > 0.5, defect
        assert 0.001 <= (change > 24).mean(), defect
        assert (mask > 0).mean() < 0.25, defect


def test_where_no_attempt_shows_plainly_the_plainest_is_kept(monkeypatch):
    category = next(c for c in TEST_CATEGORIES if c.name == "pebbled_leather")
    good = as_arrays(draw_sample(category, 0, 27))[0]
    monkeypatch.setattr(drawing, "_SMALLEST", 1.0)
    shown = []
    for attempts in (1, 5, 20):
        monkeypatch.setattr(drawing, "_ATTEMPTS", attempts)
        flawed, _ = as_arrays(draw_sample(category, 0, 27, "worn_patch"))
        shown.append((np.abs(flawed - good).max(-1) > 10).sum())
    assert shown == sorted(shown)
    assert shown[2] > shown[0]


def test_pictures_repeat_and_vary():
    category = TEST_CATEGORIES[0]
    first = as_arrays(draw_sample(category, 0, 1, category.defects[0]))
    again = as_arrays(draw_sample(category, 0, 1, category.defects[0]))
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    for seed, index in ((0, 2), (1, 1)):
        assert np.abs(as_arrays(draw_sample(category, seed, index))[0] - first[0]).mean() > 5


def test_unknown_defect_is_named():
    with pytest.raises(ValueError, match=r"`defect` \('rust'\) must be one of oak_plank's"):
        draw_sample(next(c for c in TRAIN_CATEGORIES if c.name == "oak_plank"), 0, 0, "rust")
    with pytest.raises(ValueError, match=r"`name` \('oak_plank'\) must be a category of the test half"):
        draw_example("oak_plank")


def test_every_surface_defect_is_used():
    assert set(SURFACE_DEFECTS) <= kinds(CATEGORIES)


def test_plan_spreads_the_defects():
    category = TEST_CATEGORIES[0]
    plan = dict(sample_plan(category, 4, 7))
    assert list(plan[None]) == [0, 1, 2, 3]
    sizes = [len(plan[defect]) for defect in category.defects]
    assert sum(sizes) == 7
    assert max(sizes) - min(sizes) <= 1
    numbers = [number for kind in plan.values() for number in kind]
    assert len(set(numbers)) == len(numbers)


def test_writing_repeats_for_any_number_of_workers(tmp_path):
    steps = []
    counts = {"train": (1, 0), "test": (1, 1)}
    halves = write_benchmark(tmp_path / "a", counts=counts, num_workers=0)
    write_benchmark(
        tmp_path / "b", counts=counts, num_workers=2, on_progress=lambda done, total: steps.append((done, total))
    )
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert steps == [(done, len(CATEGORIES)) for done in range(1, len(CATEGORIES) + 1)]
    assert set(halves) == {"train", "test"}
    with pytest.raises(ValueError, match=r"`counts` .* must give train and test two numbers each"):
        write_benchmark(tmp_path, counts={"test": (1, 1)})
    category = TEST_CATEGORIES[0]
    folder = halves["test"] / category.name
    with Image.open(folder / "ground_truth" / category.defects[0] / "000_mask.png") as mask:
        assert mask.mode == "L"
    assert (folder / "test" / "good" / "000.png").exists()
    assert (folder / "test" / category.defects[0] / "000.png").exists()


def local_contrast_slowly(image, patch_size, reach):
    """Loops over patches: `image` (3, height, width) -> distances (rows, columns)."""
    rows, columns = image.shape[1] // patch_size, image.shape[2] // patch_size
    means = np.zeros((rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            patch = image[:, i * patch_size : (i + 1) * patch_size, j * patch_size : (j + 1) * patch_size]
            means[i, j] = patch.reshape(3, -1).mean(1)
    distances = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = means[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
            distances[i, j] = np.sqrt(((means[i, j] - window.reshape(-1, 3).mean(0)) ** 2).sum())
    return distances


def test_heuristic_matches_loops():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps, scores = local_contrast(images, 8)
    assert maps.shape == (2, 32, 32)
    for image, score in zip(images, scores, strict=True):
        assert score.item() == pytest.approx(local_contrast_slowly(image.numpy(), 4, 2).max(), rel=1e-5)
    with pytest.raises(ValueError, match=r"`grid_size` \(5\) must divide"):
        local_contrast(images, 5)


def auroc(scores, labels):
    order = np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1
    positives = labels.sum()
    return (order[labels].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def test_contrast_alone_does_not_solve_it():
    """Strong contrast belongs to normal objects too: the heuristic stays under 0.75 at both levels, best scale."""
    image_level, pixel_level = np.zeros(len(GRIDS)), np.zeros(len(GRIDS))
    for category in TEST_CATEGORIES:
        samples = [(index, defect) for defect, indices in sample_plan(category, 8, 10) for index in indices]
        drawn = [as_arrays(draw_sample(category, 0, index, defect)) for index, defect in samples]
        images = torch.tensor(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2) / 255
        labels = np.array([defect is not None for _, defect in samples])
        masks = np.stack([mask[::4, ::4] > 0 for _, mask in drawn])
        for row, grid_size in enumerate(GRIDS):
            maps, scores = local_contrast(images, grid_size)
            image_level[row] += auroc(scores.numpy(), labels) / len(TEST_CATEGORIES)
            pixel_level[row] += auroc(maps[:, ::4, ::4].flatten().numpy(), masks.flatten()) / len(TEST_CATEGORIES)
    assert image_level.max() < 0.75
    assert pixel_level.max() < 0.75
