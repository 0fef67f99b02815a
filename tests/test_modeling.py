"""MoECLIPForAnomalyDetection: building, loading, saving, outputs, training behaviour, precision."""

import copy
import json
import os
import re

import pytest
import torch
from conftest import build_clip, randomize_adapters
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, CLIPModel, CLIPVisionModel

from moeclip_hf import MoECLIPConfig, MoECLIPForAnomalyDetection
from moeclip_hf.backbone_moeclip import is_adapter_key, resize_position_embeddings
from moeclip_hf.heads_moeclip import average_patches
from moeclip_hf.modeling_moeclip import FusedQuickGELU


def make_inputs(model, batch_size=3, num_objects=2, seed=0, with_labels=False):
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    size = config.vision_config.image_size
    end = config.text_config.eos_token_id
    ids = torch.randint(1, end - 1, (num_objects, 5, 9), generator=generator)
    ids[..., 7] = end
    inputs = {
        "pixel_values": torch.randn(batch_size, 3, size, size, generator=generator),
        "input_ids": ids,
        "prompt_state": torch.tensor([0, 0, 1, 1, 1]),
        "object_ids": torch.arange(batch_size) % num_objects,
    }
    if with_labels:
        masks = torch.zeros(batch_size, size, size, dtype=torch.long)
        masks[1:, : size // 2, : size // 3] = 1
        inputs |= {"labels": masks.flatten(1).any(1).long(), "mask_labels": masks}
    return inputs


def assert_same_outputs(first, second, inputs):
    a, b = first(**inputs), second(**inputs)
    for name in ("anomaly_logits", "image_score", "image_embeds", "text_embeds"):
        assert torch.equal(a[name], b[name]), name


class TestOutputs:
    def test_shapes(self, tiny_model):
        output = tiny_model(
            **make_inputs(tiny_model, with_labels=True),
            output_router_logits=True,
            output_hidden_states=True,
        )
        assert output.anomaly_logits.shape == (3, 4, 4)
        assert output.image_score.shape == (3,)
        assert output.image_embeds.shape == (3, 24)
        assert output.text_embeds.shape == (2, 2, 24)
        assert [tuple(p.shape) for p in output.patch_embeds] == [(3, 16, 24)] * 12
        assert [tuple(r.shape) for r in output.router_logits] == [(3, 17, 4)] * 4
        assert [tuple(h.shape) for h in output.hidden_states] == [(3, 17, 32)] * 5
        for name in ("loss", "classification_loss", "segmentation_loss", "aux_loss", "etf_loss"):
            assert output[name].shape == ()
        torch.testing.assert_close(torch.stack(output.patch_embeds).norm(dim=-1), torch.ones(12, 3, 16))
        assert output.image_score.min() >= 0
        assert output.image_score.max() <= 1

    def test_optional_outputs_are_absent_unless_asked_for(self, tiny_model):
        output = tiny_model(**make_inputs(tiny_model))
        assert set(output.keys()) == {"anomaly_logits", "image_score", "image_embeds", "patch_embeds", "text_embeds"}

    def test_hidden_states_are_the_adapted_ones_however_they_are_asked_for(self, tiny_model):
        inputs = make_inputs(tiny_model)
        before = tiny_model(**inputs)
        states = tiny_model(**inputs, output_hidden_states=True).hidden_states
        after = tiny_model(**inputs)
        assert torch.equal(before.anomaly_logits, after.anomaly_logits)
        layers = tiny_model.vision_model.encoder.layers
        with torch.no_grad():
            plain = type(layers[1]).forward(layers[1], states[1], None)
            expected = layers[1].moe_lora(plain)[0]
        torch.testing.assert_close(states[2], expected)

    def test_tuple_and_dict_hold_the_same(self, tiny_model):
        inputs = make_inputs(tiny_model)
        as_tuple, as_dict = tiny_model(**inputs, return_dict=False), tiny_model(**inputs)
        assert isinstance(as_tuple, tuple)
        assert len(as_tuple) == len(as_dict.to_tuple())
        assert torch.equal(as_tuple[0], as_dict.anomaly_logits)

    def test_attentions_with_eager_attention(self, tiny_clip):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora={"r": 4})
        inputs = make_inputs(model)
        expected = model(**inputs).anomaly_logits
        model.set_attn_implementation("eager")
        output = model(**inputs, output_attentions=True)
        assert [tuple(a.shape) for a in output.attentions] == [(3, 2, 17, 17)] * 4
        torch.testing.assert_close(output.anomaly_logits, expected, atol=1e-3, rtol=1e-4)

    def test_images_do_not_influence_each_other(self, tiny_model):
        inputs = make_inputs(tiny_model)
        together = tiny_model(**inputs)
        for i in range(3):
            alone = tiny_model(
                **{
                    **inputs,
                    "pixel_values": inputs["pixel_values"][i : i + 1],
                    "object_ids": inputs["object_ids"][i : i + 1],
                }
            )
            torch.testing.assert_close(alone.anomaly_logits[0], together.anomaly_logits[i], atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(alone.image_score[0], together.image_score[i])

    def test_evaluation_is_deterministic(self, tiny_model):
        assert_same_outputs(tiny_model, tiny_model, make_inputs(tiny_model))


class TestText:
    def test_three_ways_to_name_the_objects_agree(self, tiny_model):
        inputs = make_inputs(tiny_model)
        expected = tiny_model(**inputs)
        prompt_embeds = tiny_model.get_prompt_embeds(inputs["input_ids"])
        assert prompt_embeds.shape == (2, 5, 16)
        shared = {"pixel_values": inputs["pixel_values"], "object_ids": inputs["object_ids"]}
        by_prompts = tiny_model(**shared, prompt_embeds=prompt_embeds, prompt_state=inputs["prompt_state"])
        assert torch.equal(by_prompts.anomaly_logits, expected.anomaly_logits)
        text_embeds = tiny_model.get_text_embeds(prompt_embeds, inputs["prompt_state"])
        assert torch.equal(tiny_model(**shared, text_embeds=text_embeds).anomaly_logits, expected.anomaly_logits)

    def test_padding_changes_nothing(self, tiny_model):
        inputs = make_inputs(tiny_model)
        ids = inputs["input_ids"]
        padded = torch.nn.functional.pad(ids[..., :8], (0, 4), value=0)
        mask = torch.nn.functional.pad(torch.ones_like(ids[..., :8]), (0, 4))
        torch.testing.assert_close(
            tiny_model.get_prompt_embeds(padded, mask), tiny_model.get_prompt_embeds(ids), atol=1e-5, rtol=1e-5
        )

    def test_features_differ_between_prompts(self, tiny_model):
        embeds = tiny_model.get_prompt_embeds(make_inputs(tiny_model)["input_ids"]).flatten(0, 1)
        assert torch.pdist(embeds).min() > 1e-3

    def test_prompt_without_end_token_is_refused(self, tiny_model):
        ids = make_inputs(tiny_model)["input_ids"]
        ids[1, 2, 7] = 3
        with pytest.raises(ValueError, match="has no end token .* in prompt 7"):
            tiny_model.get_prompt_embeds(ids)

    def test_legacy_configs_pool_the_largest_id(self, tiny_model):
        ids = make_inputs(tiny_model)["input_ids"]
        expected = tiny_model.get_prompt_embeds(ids)
        tiny_model.config.text_config.eos_token_id = 2
        assert torch.equal(tiny_model.get_prompt_embeds(ids), expected)

    def test_prompt_longer_than_the_context_is_refused(self, tiny_model):
        with pytest.raises(ValueError, match="prompts of 65 tokens, but the text tower reads at most 64"):
            tiny_model.get_prompt_embeds(torch.zeros(1, 1, 65, dtype=torch.long))

    @pytest.mark.parametrize("given", [(), ("input_ids", "text_embeds"), ("prompt_embeds", "text_embeds")])
    def test_exactly_one_description_of_the_objects(self, tiny_model, given):
        inputs = make_inputs(tiny_model)
        values = {
            "input_ids": inputs["input_ids"],
            "prompt_embeds": torch.ones(2, 5, 16),
            "text_embeds": torch.ones(2, 2, 24),
        }
        with pytest.raises(ValueError, match="Pass exactly one of `input_ids`, `prompt_embeds` and `text_embeds`"):
            tiny_model(inputs["pixel_values"], **{name: values[name] for name in given})

    def test_states_must_fit_the_prompts(self, tiny_model):
        with pytest.raises(ValueError, match="`prompt_state`"):
            tiny_model.get_text_embeds(torch.ones(2, 5, 16), torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="`prompt_state`"):
            tiny_model.get_text_embeds(torch.ones(2, 5, 16), None)
        with pytest.raises(ValueError, match="both states"):
            tiny_model.get_text_embeds(torch.ones(2, 5, 16), torch.ones(5))

    def test_object_ids_may_be_left_out(self, tiny_model):
        inputs = make_inputs(tiny_model, num_objects=3)
        explicit = tiny_model(**inputs)
        object_ids = inputs.pop("object_ids")
        assert torch.equal(tiny_model(**inputs).anomaly_logits, explicit.anomaly_logits)
        inputs["input_ids"] = inputs["input_ids"][:1]
        assert torch.equal(
            tiny_model(**inputs).anomaly_logits, tiny_model(**inputs, object_ids=0 * object_ids).anomaly_logits
        )
        inputs = make_inputs(tiny_model, num_objects=2)
        del inputs["object_ids"]
        with pytest.raises(ValueError, match="`object_ids` is needed to match 3 images with 2 objects"):
            tiny_model(**inputs)

    @pytest.mark.parametrize("object_ids", [[0, 1, 2], [0, -1, 1]])
    def test_unknown_objects_are_refused(self, tiny_model, object_ids):
        inputs = make_inputs(tiny_model, num_objects=2) | {"object_ids": torch.tensor(object_ids)}
        with pytest.raises(ValueError, match=r"`object_ids` \(\[0, .*\]\) must be rows of the 2 objects .*, 0 to 1"):
            tiny_model(**inputs)


class TestLosses:
    def test_every_term_is_alive_in_both_modes(self, tiny_model):
        inputs = make_inputs(tiny_model, with_labels=True)
        for training in (True, False):
            tiny_model.train(training)
            output = tiny_model(**inputs)
            for name in ("classification_loss", "segmentation_loss", "aux_loss", "etf_loss"):
                assert output[name] > 0, name
                tiny_model.zero_grad()
                output[name].backward(retain_graph=True)
                assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny_model.parameters()), name

    def test_the_sum_is_weighted(self, tiny_model):
        tiny_model.config.router_aux_loss_coef, tiny_model.config.etf_loss_coef = 0.5, 0.25
        output = tiny_model(**make_inputs(tiny_model, with_labels=True))
        expected = (
            output.segmentation_loss + output.classification_loss + 0.5 * output.aux_loss + 0.25 * output.etf_loss
        )
        torch.testing.assert_close(output.loss, expected)

    def test_either_label_may_come_alone(self, tiny_model):
        inputs = make_inputs(tiny_model, with_labels=True)
        masks, labels = inputs.pop("mask_labels"), inputs.pop("labels")
        only_labels, only_masks = tiny_model(**inputs, labels=labels), tiny_model(**inputs, mask_labels=masks)
        assert only_labels.segmentation_loss is None
        assert only_masks.classification_loss is None
        both = tiny_model(**inputs, labels=labels, mask_labels=masks)
        assert torch.equal(only_labels.classification_loss, both.classification_loss)
        assert torch.equal(only_masks.segmentation_loss, both.segmentation_loss)
        assert only_labels.aux_loss is not None

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32])
    def test_any_nonzero_value_is_anomalous(self, tiny_model, dtype):
        inputs = make_inputs(tiny_model, with_labels=True)
        expected = tiny_model(**inputs)
        inputs["mask_labels"] = (inputs["mask_labels"] * 255).to(dtype)
        inputs["labels"] = inputs["labels"].to(dtype)
        assert torch.equal(tiny_model(**inputs).loss, expected.loss)

    def test_unknown_masks_take_no_part(self, tiny_model):
        inputs = make_inputs(tiny_model, with_labels=True)
        inputs["mask_labels"][2] = -100
        output = tiny_model(**inputs)
        known = {
            name: value[:2] if name not in ("input_ids", "prompt_state") else value for name, value in inputs.items()
        }
        torch.testing.assert_close(output.segmentation_loss, tiny_model(**known).segmentation_loss)
        inputs["mask_labels"][:] = -100
        output = tiny_model(**inputs)
        assert output.segmentation_loss.item() == 0
        output.segmentation_loss.backward()

    def test_without_experts_the_auxiliary_losses_are_none(self, tiny_clip):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora=None)
        output = model(**make_inputs(model, with_labels=True), output_router_logits=True)
        assert output.aux_loss is None
        assert output.etf_loss is None
        torch.testing.assert_close(output.loss, output.segmentation_loss + output.classification_loss)

    def test_wrong_mask_size_is_refused(self, tiny_model):
        inputs = make_inputs(tiny_model, with_labels=True)
        inputs["mask_labels"] = inputs["mask_labels"][:, :-1]
        with pytest.raises(ValueError, match=r"`mask_labels` has shape \(3, 55, 56\)"):
            tiny_model(**inputs)

    @pytest.mark.parametrize("shape", [(1, 3, 70, 70), (1, 1, 56, 56), (3, 56, 56)])
    def test_wrong_image_size_is_refused(self, tiny_model, shape):
        message = f"`pixel_values` has shape {shape}, but the model reads (batch_size, 3, 56, 56)"
        with pytest.raises(ValueError, match=re.escape(message)):
            tiny_model(torch.zeros(shape), text_embeds=torch.ones(1, 2, 24))


class TestTraining:
    def test_fresh_model_has_finite_gradients_for_every_expert(self, fresh_model):
        fresh_model.train()
        torch.manual_seed(0)
        fresh_model(**make_inputs(fresh_model, with_labels=True)).loss.backward()
        for name, parameter in fresh_model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad.isfinite().all(), name
            if name.endswith("lora_B"):
                assert parameter.grad.flatten(1).abs().sum(1).gt(0).all(), name

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_first_step_is_finite_under_autocast(self, fresh_model, dtype):
        fresh_model.train()
        with torch.autocast("cpu", dtype=dtype):
            output = fresh_model(**make_inputs(fresh_model, with_labels=True))
        assert output.loss.dtype == torch.float32
        output.loss.backward()
        assert all(p.grad.isfinite().all() for p in fresh_model.parameters() if p.requires_grad)

    def test_the_clip_never_moves(self, tiny_model):
        frozen = {n: p.clone() for n, p in tiny_model.named_parameters() if not p.requires_grad}
        split = {n: b.clone() for n, b in tiny_model.named_buffers() if n.endswith("lora_A")}
        assert all(not is_adapter_key(name) for name in frozen)
        assert len(split) == 4
        optimizer = torch.optim.Adam(tiny_model.parameters(), lr=1e-2)
        tiny_model.train()
        losses = []
        for _ in range(20):
            loss = tiny_model(**make_inputs(tiny_model, with_labels=True)).loss
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < 0.7 * losses[0]
        for name, tensor in [*tiny_model.named_parameters(), *tiny_model.named_buffers()]:
            if name in frozen or name in split:
                assert torch.equal(tensor, (frozen | split)[name]), name

    def test_gradient_checkpointing_changes_no_gradient(self, tiny_model):
        inputs = make_inputs(tiny_model, with_labels=True)
        tiny_model.train()
        for experts in tiny_model.moe_lora_layers().values():
            experts.dropout.p = 0.0
        tiny_model(**inputs).loss.backward()
        expected = {n: p.grad.clone() for n, p in tiny_model.named_parameters() if p.requires_grad}
        tiny_model.zero_grad()
        tiny_model.gradient_checkpointing_enable()
        tiny_model(**inputs).loss.backward()
        for name, gradient in expected.items():
            torch.testing.assert_close(dict(tiny_model.named_parameters())[name].grad, gradient, msg=name)

    def test_trainable_parameters_are_counted(self, tiny_model, capsys):
        trainable, total = tiny_model.get_nb_trainable_parameters()
        assert trainable == sum(p.numel() for n, p in tiny_model.named_parameters() if is_adapter_key(n))
        tiny_model.print_trainable_parameters()
        assert capsys.readouterr().out == (
            f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {100 * trainable / total:.4f}\n"
        )


class TestFromClip:
    @pytest.mark.parametrize(("patch_size", "expected"), [(14, 518), (16, 512), (32, 512)])
    def test_default_input_size(self, patch_size, expected):
        clip = build_clip(image_size=2 * patch_size, patch_size=patch_size)
        model = MoECLIPForAnomalyDetection.from_clip(clip, moe_lora={"r": 2})
        assert model.config.vision_config.image_size == expected

    @pytest.mark.parametrize(("layers", "expected"), [(4, (0, 1, 2, 3)), (6, (1, 2, 4, 5)), (12, (2, 5, 8, 11))])
    def test_default_feature_layers_end_the_quarters(self, layers, expected):
        model = MoECLIPForAnomalyDetection.from_clip(build_clip(num_layers=layers), image_size=56, moe_lora={"r": 2})
        assert model.config.feature_layers == expected
        assert list(model.moe_lora_layers()) == list(expected)

    def test_a_shallow_tower_needs_layers(self):
        clip = build_clip(num_layers=3)
        with pytest.raises(ValueError, match="vision tower of 3 layers"):
            MoECLIPForAnomalyDetection.from_clip(clip, image_size=56)
        model = MoECLIPForAnomalyDetection.from_clip(clip, image_size=56, feature_layers=(2,), moe_lora={"r": 2})
        assert model.config.feature_layers == (2,)

    @pytest.mark.parametrize("share", [True, False])
    def test_projections_from_the_clip_compare_as_the_clip_does(self, tiny_clip, share):
        """Before training, patches and texts are embedded as the CLIP itself embeds pictures and texts."""
        model = MoECLIPForAnomalyDetection.from_clip(
            tiny_clip, image_size=56, projections_from_clip=True, share_patch_projections=share
        )
        inputs = make_inputs(model)
        output = model(**inputs, output_hidden_states=True)
        for level, layer in enumerate(model.config.feature_layers):
            tokens = tiny_clip.vision_model.post_layernorm(output.hidden_states[layer + 1][:, 1:])
            expected = nn.functional.normalize(tiny_clip.visual_projection(tokens), dim=-1)
            torch.testing.assert_close(output.patch_embeds[3 * level], expected)
        tokens = nn.functional.gelu(nn.functional.layer_norm(tokens, tokens.shape[-1:]))
        expected = nn.functional.normalize(tiny_clip.visual_projection(tokens), dim=-1).mean(dim=1)
        torch.testing.assert_close(output.image_embeds, expected)
        first = tiny_clip.get_text_features(inputs["input_ids"][0]).pooler_output
        first = nn.functional.normalize(nn.functional.leaky_relu(first), dim=-1)
        means = torch.stack([first[:2].mean(0), first[2:].mean(0)])
        torch.testing.assert_close(output.text_embeds[0], nn.functional.normalize(means, dim=-1))

    def test_projections_from_the_clip_keep_its_width(self, tiny_clip):
        with pytest.raises(ValueError, match=r"`projections_from_clip` \(True\) needs `projection_dim` \(8\) to be"):
            MoECLIPForAnomalyDetection.from_clip(
                tiny_clip, image_size=56, projections_from_clip=True, projection_dim=8
            )

    def test_towers_are_the_clips_own(self, tiny_clip):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora=None)
        pixels = torch.randn(1, 3, 56, 56)
        expected = tiny_clip.vision_model(pixels, output_hidden_states=True).hidden_states
        output = model(pixels, text_embeds=torch.ones(1, 2, 24), output_hidden_states=True)
        for ours, theirs in zip(output.hidden_states, expected, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_hidden_act_is_the_clips_unless_given(self, tiny_clip):
        kept = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora={"r": 2})
        given = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, hidden_act="gelu", moe_lora={"r": 2})
        assert kept.config.vision_config.hidden_act == kept.config.text_config.hidden_act == "quick_gelu"
        assert given.config.vision_config.hidden_act == given.config.text_config.hidden_act == "gelu"
        assert tiny_clip.config.vision_config.hidden_act == "quick_gelu"
        inputs = make_inputs(kept)
        assert not torch.equal(kept(**inputs).anomaly_logits, given(**inputs).anomaly_logits)

    def test_half_precision_weights_become_float32(self, tmp_path, tiny_clip):
        tiny_clip.half().save_pretrained(tmp_path)
        model = MoECLIPForAnomalyDetection.from_clip(str(tmp_path), image_size=56, moe_lora={"r": 2})
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.config.base_model_name_or_path == str(tmp_path)

    def test_a_half_precision_clip_object_becomes_float32_too(self, tmp_path, tiny_clip):
        tiny_clip.half().save_pretrained(tmp_path)
        half = CLIPModel.from_pretrained(tmp_path)
        model = MoECLIPForAnomalyDetection.from_clip(half, image_size=56, moe_lora={"r": 2})
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model(**make_inputs(model)).anomaly_logits.isfinite().all()

    def test_unknown_fields_are_refused(self, tiny_clip):
        with pytest.raises(ValueError, match="Unknown key 'feature_layer'"):
            MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, feature_layer=(1,))

    def test_a_vision_tower_alone_is_no_clip(self, tmp_path, tiny_clip):
        CLIPVisionModel(tiny_clip.config.vision_config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="CLIP"):
            MoECLIPForAnomalyDetection.from_clip(str(tmp_path), image_size=56)

    @pytest.mark.parametrize("image_size", [28, 42, 70, 112])
    def test_any_multiple_of_the_patch_runs(self, tiny_clip, image_size):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=image_size, moe_lora={"r": 2})
        output = model(**make_inputs(model, with_labels=True))
        assert output.anomaly_logits.shape[-1] == image_size // 14
        assert output.loss.isfinite()

    @pytest.mark.parametrize(
        ("fields", "num_projections", "num_maps"),
        [
            ({"share_patch_projections": False}, 12, 12),
            ({"patch_average_kernel_sizes": (1,)}, 4, 4),
            ({"patch_projection_act": "leaky_relu"}, 4, 12),
            ({"feature_layers": (0, 3), "moe_lora": {"r": 2, "layers_to_transform": [1]}}, 2, 6),
        ],
    )
    def test_ablations(self, tiny_clip, fields, num_projections, num_maps):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, **{"moe_lora": {"r": 2}} | fields)
        assert len(model.patch_projections) == num_projections
        assert len(model(**make_inputs(model)).patch_embeds) == num_maps

    def test_without_image_head_the_image_is_the_mean_of_the_last_levels_patches(self, tiny_clip):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, use_image_head=False, moe_lora={"r": 2})
        output = model(**make_inputs(model))
        assert not [name for name in model.state_dict() if "image_head" in name]
        torch.testing.assert_close(output.image_embeds, output.patch_embeds[9].mean(1))


@pytest.mark.parametrize(
    ("name", "vision_config"),
    [
        ("B/32", {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "patch_size": 32, "image_size": 224}),
        ("B/16", {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "patch_size": 16, "image_size": 224}),
        ("L/14", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096, "patch_size": 14, "image_size": 224}),
        ("L/14-336", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096, "patch_size": 14, "image_size": 518}),
        ("H/14", {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120, "patch_size": 14, "image_size": 224}),
    ],
)  # fmt: skip
def test_published_towers_build(name, vision_config):
    layers = vision_config["num_hidden_layers"]
    config = MoECLIPConfig(
        vision_config=vision_config, feature_layers=tuple(layers * quarter // 4 - 1 for quarter in range(1, 5))
    )
    with torch.device("meta"):
        model = MoECLIPForAnomalyDetection(config)
    assert list(model.moe_lora_layers()) == list(config.feature_layers)
    if name == "L/14-336":  # experts with A, projections, image head and text adapter: the paper's 4.8 M
        adapters = sum(t.numel() for n, t in model.state_dict().items() if is_adapter_key(n))
        assert adapters == pytest.approx(4.8e6, rel=0.02)


class TestSaving:
    def test_full_round_trip(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        again = AutoModel.from_pretrained(tmp_path)
        assert type(again) is MoECLIPForAnomalyDetection
        assert_same_outputs(again, tiny_model, make_inputs(tiny_model))
        assert again.state_dict().keys() == tiny_model.state_dict().keys()

    def test_everything_trained_stays_trainable_and_the_clip_frozen_after_loading(self, tiny_model, tmp_path):
        expected = {n for n, p in tiny_model.named_parameters() if p.requires_grad}
        assert expected == {n for n, _ in tiny_model.named_parameters() if is_adapter_key(n)}
        tiny_model.save_pretrained(tmp_path)
        again = MoECLIPForAnomalyDetection.from_pretrained(tmp_path)
        assert {n for n, p in again.named_parameters() if p.requires_grad} == expected
        assert {n for n, p in copy.deepcopy(again).named_parameters() if p.requires_grad} == expected

    def test_backbone_names_are_clips(self, tiny_model, tiny_clip):
        ours = {n for n in tiny_model.state_dict() if not is_adapter_key(n)}
        theirs = {n for n in tiny_clip.state_dict() if n.startswith(("vision_model.", "text_model."))}
        assert ours == theirs
        for name in tiny_model.state_dict():
            if is_adapter_key(name):
                assert "self_attn" not in name
                assert "mlp" not in name

    def test_adapters_only_round_trip(self, tiny_clip_folder, tmp_path):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=70, moe_lora={"r": 4})
        randomize_adapters(model)
        folder = tmp_path / "adapters"
        model.save_pretrained(folder, adapters_only=True)
        assert all(is_adapter_key(name) for name in load_file(folder / "model.safetensors"))
        assert model.config.adapters_only is False
        again = AutoModel.from_pretrained(folder)
        assert_same_outputs(again, model, make_inputs(model))
        assert again.config.adapters_only is True
        assert again.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
        again.save_pretrained(tmp_path / "full", adapters_only=False)
        assert_same_outputs(MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "full"), model, make_inputs(model))

    def test_relative_base_is_found_from_the_adapters_folder(self, tiny_clip_folder, tmp_path, monkeypatch):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
        model.config.base_model_name_or_path = "../tiny_clip"
        model.save_pretrained(tmp_path / "adapters", adapters_only=True)
        monkeypatch.chdir("/")
        again = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "adapters")
        assert_same_outputs(again, model, make_inputs(model))
        assert again.config.base_model_name_or_path == str(tmp_path / "tiny_clip")

    def test_adapters_only_needs_a_base(self, tiny_model, tmp_path):
        with pytest.raises(ValueError, match="needs `config.base_model_name_or_path`"):
            tiny_model.save_pretrained(tmp_path, adapters_only=True)
        tiny_model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "adapters_only": True}))
        with pytest.raises(ValueError, match="names no `base_model_name_or_path`"):
            MoECLIPForAnomalyDetection.from_pretrained(tmp_path)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("adapters_only", [False, True])
    def test_loading_in_half_precision(self, tiny_clip_folder, tmp_path, dtype, adapters_only):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=70, moe_lora={"r": 4})
        randomize_adapters(model)
        model.save_pretrained(tmp_path / "model", adapters_only=adapters_only)
        half = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model", dtype=dtype)
        assert {p.dtype for p in half.parameters()} == {dtype}
        inputs = make_inputs(model)
        expected = model(**inputs).anomaly_logits
        difference = (half(**inputs).anomaly_logits - expected).abs().max() / (expected.max() - expected.min())
        assert difference < 0.1

    def test_loading_arguments_reach_both_loads(self, tiny_clip_folder, tmp_path):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
        model.save_pretrained(tmp_path / "repo" / "nested", adapters_only=True)
        again = MoECLIPForAnomalyDetection.from_pretrained(
            tmp_path / "repo",
            subfolder="nested",
            attn_implementation="eager",
            device_map={"": "cpu"},
            local_files_only=True,
        )
        assert again.config._attn_implementation == "eager"
        assert again.vision_model.config._attn_implementation == "eager"
        torch.testing.assert_close(
            again(**make_inputs(model)).anomaly_logits,
            model(**make_inputs(model)).anomaly_logits,
            atol=1e-3,
            rtol=1e-4,
        )

    @pytest.mark.parametrize("adapters_only", [True, False])
    @pytest.mark.parametrize("sizes", [("4KB", "1GB"), ("1GB", "4KB"), ("4KB", "8KB")])
    def test_a_save_in_other_shards_takes_the_place_of_the_first(
        self, tiny_clip_folder, tmp_path, sizes, adapters_only
    ):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
        model.save_pretrained(tmp_path / "model", variant="first")
        for max_shard_size in sizes:
            randomize_adapters(model)
            model.save_pretrained(tmp_path / "model", adapters_only=adapters_only, max_shard_size=max_shard_size)
        again = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
        assert_same_outputs(again, model, make_inputs(model))
        assert (tmp_path / "model" / "model.first.safetensors").is_file()
        written = sorted(path.name for path in (tmp_path / "model").glob("model*") if ".first" not in path.name)
        model.save_pretrained(tmp_path / "alone", adapters_only=adapters_only, max_shard_size=sizes[-1])
        assert written == sorted(path.name for path in (tmp_path / "alone").glob("model*"))

    def test_an_interrupted_save_leaves_the_old_model(self, tiny_model, tmp_path, monkeypatch):
        tiny_model.save_pretrained(tmp_path)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

        def write_half(tensors, filename, metadata=None):
            with open(filename, "wb") as file:
                file.write(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", write_half)
        with pytest.raises(KeyboardInterrupt):
            tiny_model.save_pretrained(tmp_path)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before

    def test_loading_info_can_be_asked_for(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        _, info = MoECLIPForAnomalyDetection.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]


class TestDamagedCheckpoints:
    def change(self, folder, edit):
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda tensors: tensors.pop("text_adapter.weight"), "lacks 'text_adapter.weight'"),
            (lambda tensors: tensors.update(extra=torch.ones(1)), "has the unknown 'extra'"),
            (
                lambda tensors: tensors.update({"text_adapter.weight": torch.ones(24, 15)}),
                "another shape of 'text_adapter",
            ),
        ],
    )
    @pytest.mark.parametrize("adapters_only", [False, True])
    def test_weights_that_do_not_match_the_config(self, tiny_clip_folder, tmp_path, edit, message, adapters_only):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
        model.save_pretrained(tmp_path / "model", adapters_only=adapters_only)
        self.change(tmp_path / "model", edit)
        with pytest.raises(ValueError, match=message) as error:
            MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")
        assert "\n" not in str(error.value)

    def test_config_of_another_model(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["moe_lora"]["r"] = 2
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="does not match its config"):
            MoECLIPForAnomalyDetection.from_pretrained(tmp_path)

    def test_truncated_adapters(self, tiny_clip_folder, tmp_path):
        model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56, moe_lora={"r": 4})
        model.save_pretrained(tmp_path / "model", adapters_only=True)
        file = tmp_path / "model" / "model.safetensors"
        os.truncate(file, file.stat().st_size // 2)
        with pytest.raises(ValueError, match="is damaged or no safetensors file"):
            MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "model")

    def test_pickles_are_refused(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        torch.save(tiny_model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises((ValueError, OSError), match="safetensors"):
            MoECLIPForAnomalyDetection.from_pretrained(tmp_path)
        with pytest.raises(ValueError, match="safetensors only"):
            MoECLIPForAnomalyDetection.from_pretrained(tmp_path, use_safetensors=False)


def test_fused_activation_equals_clips_own_with_its_gradient():
    features = torch.linspace(-30, 30, 501, requires_grad=True)
    fused, plain = FusedQuickGELU()(features), features * torch.sigmoid(1.702 * features)
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(
        torch.autograd.grad(fused.sum(), features)[0],
        torch.autograd.grad(plain.sum(), features)[0],
        atol=1e-6,
        rtol=1e-5,
    )


def test_patch_average_is_the_window_mean_with_zeros_outside():
    tokens = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    grid = tokens.view(2, 3, 3, 5)
    averaged = average_patches(tokens, 3).view(2, 3, 3, 5)
    torch.testing.assert_close(averaged[:, 1, 1], grid.sum((1, 2)) / 9)
    torch.testing.assert_close(averaged[:, 0, 0], grid[:, :2, :2].sum((1, 2)) / 9)
    assert torch.equal(average_patches(tokens, 1), tokens)


def test_positions_are_resized_as_a_picture_and_the_class_position_kept():
    weight = torch.randn(1 + 9, 6, generator=torch.Generator().manual_seed(0))
    assert resize_position_embeddings(weight, 3) is weight
    resized = resize_position_embeddings(weight, 5)
    assert torch.equal(resized[0], weight[0])
    channel = torch.nn.functional.interpolate(
        weight[1:, 2].view(1, 1, 3, 3), (5, 5), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(resized[1:, 2], channel.flatten())
    half = resize_position_embeddings(weight.half(), 2)
    assert half.dtype == torch.float16


@pytest.mark.slow
def test_compiles_without_graph_breaks(tiny_model):
    inputs = make_inputs(tiny_model)
    text_embeds = tiny_model.get_text_embeds(tiny_model.get_prompt_embeds(inputs["input_ids"]), inputs["prompt_state"])
    shared = {"object_ids": inputs["object_ids"], "text_embeds": text_embeds.detach()}
    compiled = torch.compile(tiny_model, fullgraph=True)
    with torch.no_grad():
        expected = tiny_model(inputs["pixel_values"], **shared).anomaly_logits
        actual = compiled(inputs["pixel_values"], **shared).anomaly_logits
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_runs_on_a_gpu(tiny_model, dtype):
    inputs = make_inputs(tiny_model, with_labels=True)
    expected = tiny_model(**inputs)
    tiny_model.cuda()
    inputs = {name: value.cuda() for name, value in inputs.items()}
    with torch.autocast("cuda", dtype=dtype, enabled=dtype is not torch.float32):
        output = tiny_model(**inputs)
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in tiny_model.parameters() if p.requires_grad)
    torch.testing.assert_close(output.loss.cpu(), expected.loss, rtol=1e-4 if dtype is torch.float32 else 0.1, atol=0)
