"""The pretraining of the demo's tiny CLIP: pictures, labels, texts, a few steps, and the weights that are shipped."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection

from moeclip_hf.demo.pretraining import attention, texts
from moeclip_hf.demo.pretraining.__main__ import main as pretraining_main
from moeclip_hf.demo.pretraining.batches import make_batch
from moeclip_hf.demo.pretraining.fields import Canvas, hash_unit, spectral_noise
from moeclip_hf.demo.pretraining.irregularities import CHANGES, REGIONS, add_irregularity
from moeclip_hf.demo.pretraining.measure import auroc, measure, state_maps
from moeclip_hf.demo.pretraining.objective import IRREGULAR_SHARE, Batch, RegionTextObjective
from moeclip_hf.demo.pretraining.samples import MIXTURES, draw_sample
from moeclip_hf.demo.pretraining.scenes import SCENES, object_scene, render, scene_nouns, structural_irregularity
from moeclip_hf.demo.pretraining.shards import SamplePool, patch_shares
from moeclip_hf.demo.pretraining.stages import Recipe, Stage
from moeclip_hf.demo.pretraining.textures import HELD_OUT_PATTERNS, PATTERNS, TRAINING_PATTERNS
from moeclip_hf.demo.pretraining.tokenizer import learn_tokenizer, shipped_tokenizer
from moeclip_hf.demo.pretraining.train import build_clip, pretrain, resize_positions


SHIPPED = Path(str(files("moeclip_hf"))) / "demo" / "tiny_clip"


@pytest.fixture(scope="module")
def tokenizer():
    return shipped_tokenizer()


@pytest.fixture(scope="module")
def shipped():
    return CLIPModel.from_pretrained(SHIPPED, dtype=torch.float32).eval(), CLIPTokenizer.from_pretrained(SHIPPED)


# ---------------------------------------------------------------- pictures and labels


def test_samples_depend_on_seed_and_number_alone():
    first, again = draw_sample(5, 3, 48), draw_sample(5, 3, 48)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert first.noun == again.noun
    assert not np.array_equal(first.image, draw_sample(6, 3, 48).image)
    assert not np.array_equal(first.image, draw_sample(5, 4, 48).image)


def test_the_things_mixture_draws_things_with_clear_irregularities():
    drawn = {
        name: [draw_sample(8, number, 48, irregular_share=1.0, mixture=mixture) for number in range(60)]
        for name, mixture in MIXTURES.items()
    }

    def contrast(samples):
        found = [
            np.abs(sample.image.astype(int) - sample.twin).mean(-1)[sample.mask > 127].mean()
            for sample in samples
            if (sample.mask > 127).any()
        ]
        return np.median(found)

    def background(samples):
        return np.mean([(sample.foreground < 128).mean() for sample in samples])

    assert contrast(drawn["things"]) > 1.2 * contrast(drawn["broad"])
    assert background(drawn["things"]) > background(drawn["broad"])


def test_the_dense_mixture_draws_several_irregularities_a_picture():
    marked = {
        name: sum(draw_sample(8, number, 48, 1.0, mixture=MIXTURES[name]).mask.mean() for number in range(60))
        for name in ("things", "dense")
    }
    assert marked["dense"] > 1.4 * marked["things"]


def test_twins_differ_only_around_the_mask():
    compared = 0
    for number in range(40):
        sample = draw_sample(3, number, 64, irregular_share=1.0)
        difference = np.abs(sample.image.astype(int) - sample.twin).mean(-1)
        if not sample.mask.any():
            continue
        compared += 1
        assert difference[sample.mask > 127].mean() > 4 * difference[sample.mask == 0].mean()
    assert compared > 30


def test_regular_samples_equal_their_twins():
    for number in range(10):
        sample = draw_sample(3, number, 48, irregular_share=0.0)
        assert not sample.mask.any()
        assert np.array_equal(sample.image, sample.twin)


def test_about_half_of_the_samples_are_regular_and_a_third_are_grey():
    samples = [draw_sample(1, number, 48) for number in range(150)]
    assert all(sample.image.shape == (48, 48, 3) and sample.image.dtype == np.uint8 for sample in samples)
    assert 0.35 < np.mean([sample.mask.any() for sample in samples]) < 0.65
    grey = [np.abs(np.diff(sample.image.astype(int), axis=-1)).max() <= 2 for sample in samples]
    assert np.mean(grey) > 0.3
    areas = [(sample.mask > 127).mean() for sample in samples if sample.mask.any()]
    assert max(areas) < 0.6
    assert np.median(areas) < 0.1


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_patterns_are_finite_and_bounded_on_any_canvas(pattern):
    for shape in ((40, 40), (33, 51)):
        values = pattern(np.random.default_rng(0), Canvas(*shape))
        assert values.shape == shape
        assert np.isfinite(values).all()
        assert values.min() > -0.6
        assert values.max() < 1.6
        assert values.std() > 0


def test_held_out_patterns_are_never_drawn_in_training():
    assert set(TRAINING_PATTERNS) | set(HELD_OUT_PATTERNS) == set(PATTERNS)
    assert set(TRAINING_PATTERNS).isdisjoint(HELD_OUT_PATTERNS)


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.__name__)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_nothing_changes_far_from_a_region(region, change):
    rng, canvas = np.random.default_rng(2), Canvas(56, 56)
    image = rng.uniform(0.2, 0.8, (56, 56, 3)).astype(np.float32)
    where = region(rng, canvas, 0.0, 0.0).astype(np.float32)
    changed = change(rng, canvas, image, where)
    assert changed.shape == image.shape
    assert np.isfinite(changed).all()
    far = np.ones((56, 56), bool)
    for row, column in np.argwhere(where > 0):
        far[max(row - 12, 0) : row + 13, max(column - 12, 0) : column + 13] = False
    assert np.abs(changed - image)[far].max(initial=0) < 1e-3


def test_masks_mark_what_differs():
    rng, canvas = np.random.default_rng(0), Canvas(64, 64)
    found = 0
    for _ in range(40):
        image = np.full((64, 64, 3), rng.uniform(0.3, 0.7), np.float32)
        image += 0.05 * spectral_noise(rng, canvas)[..., None]
        allowed = np.zeros((64, 64), bool)
        allowed[:, :40] = True
        change = add_irregularity(rng, canvas, image, allowed)
        if change is None:
            continue
        found += 1
        difference = np.abs(change.image - image).mean(-1)
        assert change.mask.any()
        assert difference[change.mask].mean() >= 0.035
        assert difference[change.mask].mean() > 3 * difference[~change.mask].mean()
        assert not change.mask[:, 44:].any()
    assert found > 25


def test_structural_masks_are_where_the_two_renderings_differ():
    rng, found = np.random.default_rng(3), 0
    for _ in range(12):
        scene = object_scene(rng, Canvas(64, 64))
        again, _ = render(scene, scene.parts)
        assert np.array_equal(again, scene.image)
        change = structural_irregularity(rng, scene)
        if change is not None:
            found += 1
            difference = np.abs(change.image - scene.image).mean(-1)
            assert difference[change.mask].mean() > 0.05
            assert difference[~change.mask].max() < 0.5
            assert difference[~change.mask].mean() < 0.01
    assert found > 6


@pytest.mark.parametrize("build", SCENES, ids=lambda build: build.__name__)
def test_scenes_have_a_picture_a_foreground_and_a_noun(build):
    for seed in range(3):
        scene = build(np.random.default_rng(seed), Canvas(50, 62))
        assert scene.image.shape == (50, 62, 3)
        assert scene.image.min() >= 0
        assert scene.image.max() <= 1
        assert scene.foreground.shape == (50, 62)
        assert scene.noun


def test_patch_shares_match_a_loop():
    mask = np.random.default_rng(0).integers(0, 256, (24, 24)).astype(np.uint8)
    shares = patch_shares(mask, 8)
    for row in range(3):
        for column in range(3):
            block = mask[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert shares[row, column] == np.ceil(block.astype(float).mean())


def test_hash_is_uniform_and_changes_with_the_seed():
    x, y = np.meshgrid(np.arange(60.0), np.arange(60.0))
    values = hash_unit(x, y, seed=1)
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values.ravel(), hash_unit(x, y, seed=2).ravel())[0, 1]) < 0.05


# ---------------------------------------------------------------- texts and tokenizer


def test_tokenizer_reads_any_text_and_ends_with_its_last_id(tokenizer):
    rng = np.random.default_rng(0)
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    for _ in range(50):
        for text in texts.state_texts(rng, texts.arbitrary_noun(rng)):
            ids = tokenizer(text).input_ids
            assert ids[0] == tokenizer.bos_token_id
            assert ids[-1] == tokenizer.eos_token_id
            assert ids.count(tokenizer.eos_token_id) == 1
            assert len(ids) <= tokenizer.model_max_length
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            assert decoded.replace(" ", "") == text.lower().replace(" ", "")


def test_known_words_are_one_token_and_unknown_ones_have_no_unknown_token(tokenizer):
    assert tokenizer.tokenize("a photo of a damaged magnetic tile.") == [
        f"{word}</w>" for word in ("a", "photo", "of", "a", "damaged", "magnetic", "tile", ".")
    ]
    pieces = tokenizer.tokenize("Zürich's quixotic x-ray 漢字")
    assert len(pieces) > 8
    assert not set(pieces) & set(tokenizer.all_special_tokens)


def test_learnt_vocabulary_has_every_listed_word_as_one_token(tokenizer):
    words = texts.vocabulary_words(scene_nouns())
    for one in (tokenizer, learn_tokenizer()):
        assert [word for word in words if len(one.tokenize(word)) > 1] == []
        assert one.eos_token_id == len(one) - 1


def test_long_object_names_fit_the_context(tokenizer):
    name = (
        "bright concentric rings in neon yellow and blue tones against a dark blue background, "
        "resembling a stylized wave or energy field radiating outward"
    )
    assert len(tokenizer(f"a photo of a {name} with damage.").input_ids) <= tokenizer.model_max_length


def test_words_of_the_test_categories_never_occur_in_training_texts():
    rng = np.random.default_rng(0)
    for _ in range(300):
        words = set(texts.arbitrary_noun(rng).split())
        assert not words & texts.HELD_OUT_WORDS


# ---------------------------------------------------------------- objective and loop


def test_attention_of_the_pretraining_is_that_of_the_saved_model(tokenizer):
    clip = build_clip(replace(SMALL, stages=()), len(tokenizer), 48)
    assert clip.vision_model.config._attn_implementation == attention.NAME
    plain = CLIPModel(CLIPConfig.from_dict(clip.config.to_dict()))
    plain.set_attn_implementation("eager")
    plain.load_state_dict(clip.state_dict())
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    gradients = []
    for model in (clip, plain):
        tokens = model.vision_model(pixel_values=pixels).last_hidden_state
        tokens[:, 1:].square().mean().backward()
        gradients.append((tokens, model.vision_model.encoder.layers[0].self_attn.q_proj.weight.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_positions_are_resized_once_and_the_rest_stays(tokenizer):
    clip = build_clip(Recipe((), hidden_size=64, num_layers=4, num_heads=1), len(tokenizer), 32)
    table = clip.vision_model.embeddings.position_embedding.weight.detach().clone()
    resize_positions(clip, 32)
    assert torch.equal(clip.vision_model.embeddings.position_embedding.weight, table)
    resize_positions(clip, 48)
    resized = clip.vision_model.embeddings.position_embedding.weight
    assert resized.shape == (37, 64)
    assert torch.equal(resized[0], table[0])
    assert resized[1:].mean(0).allclose(table[1:].mean(0), atol=0.02)
    assert clip.vision_model(torch.zeros(1, 3, 48, 48)).last_hidden_state.shape == (1, 37, 64)


STAGE = Stage(
    "first",
    size=32,
    steps=3,
    images=12,
    first=8,
    growth=2,
    batch_size=6,
    learning_rate=1e-3,
    warmup=1,
    decay=1,
    shard_size=6,
)
SMALL = Recipe(
    (STAGE, replace(STAGE, name="second", size=48, steps=2, peak_weight=0.3, rank_weight=0.5, paired=True, piece=4)),
    hidden_size=64,
    num_layers=4,
    num_heads=1,
    text_hidden_size=64,
    text_layers=1,
    projection_dim=32,
    levels=(0, 1, 2, 3),
)


def test_ranks_without_pairs_are_refused():
    with pytest.raises(ValueError, match=r"'first': `rank_weight` \(0.5\) needs pairs: set `paired=True`"):
        replace(STAGE, rank_weight=0.5)


def _losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    options = {"bfloat16": False, "checkpoint_every": 1, "progress": False}
    folder = pretrain(SMALL, tmp_path / "straight", **options)
    straight = _losses(tmp_path / "straight")
    assert len(straight) == 5
    assert np.isfinite(straight).all()

    pieces = tmp_path / "pieces"
    for steps in (1, 4, None):
        pretrain(SMALL, pieces, stop_after=steps, **options)
    assert _losses(pieces) == straight
    one, other = (CLIPModel.from_pretrained(path) for path in (folder, pieces / "tiny_clip"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert one.config.vision_config.image_size == 48
    assert one.dtype == torch.float16


def test_a_batch_moves_with_all_its_tensors():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 3, 8, 8), *(torch.zeros(2, 1) for _ in range(3)), ids, ids, ids[:, 0])
    moved = batch.to("meta")
    assert moved.places is None
    for name, value in vars(batch).items():
        if value is not None:
            assert getattr(moved, name).device.type == "meta"
            assert getattr(moved, name).shape == value.shape


def test_a_stage_may_end_with_a_share_of_the_weights_that_it_began_with(tmp_path):
    recipe = replace(SMALL, stages=(replace(STAGE, steps=1), replace(STAGE, name="second", steps=2)))
    kept = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[1], kept_share=0.25)))
    saved = {}
    for name, chosen, steps in (("before", recipe, 1), ("after", recipe, None), ("kept", kept, None)):
        pretrain(chosen, tmp_path / name, stop_after=steps, bfloat16=False, progress=False)
        saved[name] = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["average"]
    for name, value in saved["kept"].items():
        torch.testing.assert_close(value, 0.25 * saved["before"][name] + 0.75 * saved["after"][name], msg=name)


def test_a_stage_that_continues_another_keeps_a_share_of_what_that_one_began_with(tmp_path):
    stages = (replace(STAGE, steps=1), replace(STAGE, name="second", steps=2), replace(STAGE, name="third", steps=1))
    kept = (*stages[:2], replace(stages[2], kept_share=0.25, continues=True))
    saved = {}
    for name, chosen, stops in (("before", stages, (1,)), ("after", stages, (None,)), ("kept", kept, (1, 2, 3, None))):
        for stop in stops:
            pretrain(replace(SMALL, stages=chosen), tmp_path / name, stop_after=stop, bfloat16=False, progress=False)
        saved[name] = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["average"]
    for name, value in saved["kept"].items():
        torch.testing.assert_close(value, 0.25 * saved["before"][name] + 0.75 * saved["after"][name], msg=name)


def test_branches_begin_alike_see_other_batches_and_end_with_their_mean(tmp_path):
    options = {"bfloat16": False, "checkpoint_every": 1, "progress": False}
    branched = replace(STAGE, name="second", steps=2, branches=3, kept_share=0.25)
    recipe = replace(SMALL, stages=(replace(STAGE, steps=1), branched))
    pretrain(recipe, tmp_path / "branched", **options)
    found = torch.load(tmp_path / "branched" / "checkpoint.pt", weights_only=True)
    losses = _losses(tmp_path / "branched")
    assert len(losses) == len(set(losses)) == 1 + 3 * 2

    # each branch by itself, as a stage without branches whose batches have that branch's seed
    straight = replace(recipe, stages=(recipe.stages[0], replace(branched, branches=1, kept_share=0.0)))
    ends = []
    for branch in range(3):
        folder = tmp_path / f"branch-{branch}"
        pretrain(straight, folder, stop_after=1, **options)
        # the branches share one pool, that of the recipe's seed
        shutil.copytree(tmp_path / "branched" / "samples-second", folder / "samples-second", dirs_exist_ok=True)
        pretrain(replace(straight, seed=recipe.seed + branch), folder, **options)
        assert _losses(folder)[1:] == losses[1 + 2 * branch : 3 + 2 * branch]
        ends.append(torch.load(folder / "checkpoint.pt", weights_only=True)["average"])
    for name, value in found["average"].items():
        expected = 0.25 * found["first"][name] + 0.75 * torch.stack([end[name] for end in ends]).mean(0)
        torch.testing.assert_close(value, expected, msg=name)

    pieces = tmp_path / "pieces"
    for steps in (2, 3, 4, None):
        pretrain(recipe, pieces, stop_after=steps, **options)
    assert _losses(pieces) == losses
    resumed = torch.load(pieces / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(value, resumed[name]) for name, value in found["average"].items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_begun_on_cuda_goes_on_on_the_cpu_with_the_same_losses(tmp_path):
    options = {"bfloat16": False, "checkpoint_every": 1, "progress": False}
    pretrain(SMALL, tmp_path / "cpu", **options)
    pretrain(SMALL, tmp_path / "moved", device="cuda", stop_after=4, **options)
    pretrain(SMALL, tmp_path / "moved", **options)
    assert _losses(tmp_path / "moved") == pytest.approx(_losses(tmp_path / "cpu"), rel=1e-3)


def test_pieces_keep_the_positions_that_the_whole_picture_gives_them(tokenizer):
    recipe = replace(SMALL, stages=())
    model = RegionTextObjective(build_clip(recipe, len(tokenizer), 48), recipe.levels)
    pixels = torch.randn(2, 3, 48, 48)
    whole, *means = model.encode_levels(pixels)
    every_place = torch.arange(36).expand(2, 36)
    found, *found_means = model.encode_levels(pixels, every_place)
    for part, same in zip((*whole, *means), (*found, *found_means), strict=True):
        torch.testing.assert_close(part, same)
    # with a single patch nothing but its own position and pixels counts
    place = torch.tensor([[14], [14]])  # row 2, column 2 of 6 x 6
    alone = model._embed(pixels[..., 16:24, 16:24], place)[:, 1]
    torch.testing.assert_close(alone, model._embed(pixels, None)[:, 1 + 14])


def test_batches_of_pieces_show_what_is_irregular_where_it_is(tmp_path, tokenizer):
    stage = replace(STAGE, size=48, batch_size=12, paired=True, piece=3, mixture="things")
    pool = SamplePool(
        tmp_path, seed=1, size=48, patch_size=8, total=12, first=12, growth=1, shard_size=6, paired=True, workers=1
    )
    try:
        batch = make_batch(pool, tokenizer, stage, step=0, seed=5)
    finally:
        pool.close()
    assert batch.pixel_values.shape == (12, 3, 24, 24)
    assert batch.places.shape == batch.irregular.shape == (12, 9)
    assert torch.equal(batch.places[:6], batch.places[6:])
    assert (batch.irregular[:6].amax(-1) >= IRREGULAR_SHARE).float().mean() > 0.6
    difference = (batch.pixel_values[:6] - batch.pixel_values[6:]).abs().mean(1)
    difference = torch.nn.functional.avg_pool2d(difference[:, None], 8).flatten(1)
    irregular = batch.irregular[:6] >= IRREGULAR_SHARE
    assert difference[irregular].mean() > 3 * difference[batch.irregular[:6] == 0].mean()
    rows, columns = batch.places[0] // 6, batch.places[0] % 6
    assert rows.view(3, 3).diff(dim=0).unique().tolist() == [1]
    assert columns.view(3, 3).diff(dim=1).unique().tolist() == [1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--workers", "0"), "--workers is 0, but must be 1 or more."),
        (("--threads", "-1"), "--threads is -1, but must be 1 or more."),
        (("--device", "toaster"), "--device toaster cannot be used: "),
    ],
    ids=["workers", "threads", "device"],
)
def test_the_command_refuses_in_one_line_what_it_cannot_run_with(tmp_path, monkeypatch, capsys, option, message):
    monkeypatch.setattr("sys.argv", ["pretraining", "--output", str(tmp_path), *option])
    with pytest.raises(SystemExit):
        pretraining_main()
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_rate_warms_up_stays_and_falls_to_zero():
    stage = replace(STAGE, steps=10, warmup=4, decay=5, learning_rate=1.0)
    assert [round(stage.rate(step), 3) for step in range(10)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]


# ---------------------------------------------------------------- what is shipped


def test_shipped_weights_are_small_half_precision_and_complete(shipped):
    clip, tokenizer = shipped
    assert (SHIPPED / "model.safetensors").stat().st_size <= 12e6
    assert json.loads((SHIPPED / "config.json").read_text())["dtype"] == "float16"
    assert (SHIPPED / "README.md").read_text().count("procedural") > 1
    vision, text = clip.config.vision_config, clip.config.text_config
    assert vision.image_size // vision.patch_size >= 14
    assert vision.projection_dim == text.projection_dim == clip.config.projection_dim
    assert (
        CLIPVisionModelWithProjection.from_pretrained(SHIPPED).visual_projection.out_features == vision.projection_dim
    )
    assert text.vocab_size == len(tokenizer)
    assert text.eos_token_id == tokenizer.eos_token_id == len(tokenizer) - 1
    assert all(torch.isfinite(value).all() for value in clip.state_dict().values())


def test_shipped_tower_finds_irregularities_it_has_never_seen(shipped):
    clip, tokenizer = shipped
    size = clip.config.vision_config.image_size
    samples = [draw_sample(424_242, number, size, held_out=True) for number in range(40)]
    assert measure(clip, tokenizer, samples)["region_auroc"] > 0.8


def test_shipped_state_direction_holds_for_any_noun(shipped):
    clip, tokenizer = shipped
    nouns = ["magnetic tile", "wurblefink", "pcb", "colon endoscopy image", "surface"]
    pixels = torch.randn(1, 3, clip.config.vision_config.image_size, clip.config.vision_config.image_size)
    maps, _ = state_maps(clip, tokenizer, pixels.expand(len(nouns), -1, -1, -1), nouns)
    correlation = np.corrcoef(maps.flatten(1).numpy())
    assert correlation.min() > 0.8


def test_auroc_counts_ties_half():
    assert auroc(np.array([1, 2, 2, 3]), np.array([0, 0, 1, 1])) == pytest.approx(0.875)
    assert np.isnan(auroc(np.array([1, 2]), np.array([0, 0])))
