"""The pretraining reads the tower as a model on it does before its first step."""

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPModel

from moeclip_hf import MoECLIPForAnomalyDetection
from moeclip_hf.backbone_moeclip import default_feature_layers
from moeclip_hf.demo import DEMO_CLIP
from moeclip_hf.demo.pretraining.levels import read_levels
from moeclip_hf.demo.pretraining.measure import state_maps
from moeclip_hf.demo.pretraining.tokenizer import shipped_tokenizer


@pytest.fixture(scope="module")
def clip():
    return CLIPModel.from_pretrained(DEMO_CLIP, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def pixels(clip):
    size = clip.config.vision_config.image_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_levels_are_those_of_a_fresh_model(clip, pixels):
    size = clip.config.vision_config.image_size
    options = {"projections_from_clip": True, "image_size": size, "patch_average_kernel_sizes": (1,)}
    model = MoECLIPForAnomalyDetection.from_clip(clip, **options)
    found = read_levels(clip.vision_model, clip.vision_model.embeddings(pixels), model.config.feature_layers)
    expected = model(pixel_values=pixels, text_embeds=torch.ones(1, 2, model.config.projection_dim))
    assert len(found) == len(expected.patch_embeds) == 4
    for tokens, patches in zip(found, expected.patch_embeds, strict=True):
        embeds = clip.visual_projection(clip.vision_model.post_layernorm(tokens))[:, 1:]
        torch.testing.assert_close(F.normalize(embeds, dim=-1), patches, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_levels_match_a_loop_over_clips_own_layers(clip, pixels):
    levels = default_feature_layers(clip.config.vision_config.num_hidden_layers)
    tower = clip.vision_model
    hidden, expected = tower.pre_layrnorm(tower.embeddings(pixels)), []
    for index, layer in enumerate(tower.encoder.layers):
        hidden = layer(hidden, None)
        if index in levels:
            hidden = hidden - 0.1 * hidden
            expected.append(hidden)
    torch.testing.assert_close(read_levels(tower, tower.embeddings(pixels), levels), expected)
    plain = tower(pixel_values=pixels).last_hidden_state
    assert not torch.allclose(F.normalize(expected[-1], dim=-1), F.normalize(plain, dim=-1), atol=1e-3)


@torch.no_grad()
def test_maps_are_of_the_last_level(clip, pixels):
    tower, tokenizer = clip.vision_model, shipped_tokenizer()
    maps, scores = state_maps(clip, tokenizer, pixels, ["plate", "wurblefink"])
    levels = default_feature_layers(clip.config.vision_config.num_hidden_layers)
    tokens = read_levels(tower, tower.embeddings(pixels), levels)[-1]
    for row, noun in enumerate(("plate", "wurblefink")):
        ids = tokenizer([f"a {noun}.", f"a damaged {noun}."], padding=True, return_tensors="pt").input_ids
        normal, damaged = F.normalize(clip.get_text_features(input_ids=ids).pooler_output, dim=-1)
        patches = F.normalize(clip.visual_projection(tower.post_layernorm(tokens[row])), dim=-1)
        expected = patches @ damaged - patches @ normal
        torch.testing.assert_close(torch.cat([scores[row, None], maps[row].flatten()]), expected, atol=1e-5, rtol=1e-4)
