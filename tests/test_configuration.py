"""MoECLIPConfig and MoELoraConfig: defaults, round trips and every rule."""

import pytest
from transformers import AutoConfig

from moeclip_hf import MoECLIPConfig, MoELoraConfig


def test_defaults_are_the_papers():
    config = MoECLIPConfig()
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (1024, 24, 16)
    assert (vision.image_size, vision.patch_size, config.grid_size) == (518, 14, 37)
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (768, 12, 12)
    assert (text.max_position_embeddings, config.projection_dim) == (77, 768)
    assert vision.hidden_act == text.hidden_act == "quick_gelu"
    assert config.feature_layers == (5, 11, 17, 23)
    assert config.patch_average_kernel_sizes == (1, 3, 5)
    assert config.num_maps == 12
    assert config.moe_lora == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "orthogonal_split": True,
        "adapter_weight": 0.1,
        "layers_to_transform": [5, 11, 17, 23],
        "seed": 0,
    }


def test_defaults_are_not_shared_between_instances():
    MoECLIPConfig().moe_lora["r"] = 1
    assert MoECLIPConfig().moe_lora["r"] == 8


def test_json_round_trip(tmp_path):
    config = MoECLIPConfig(
        vision_config={"num_hidden_layers": 6, "image_size": 224, "patch_size": 16, "hidden_act": "gelu"},
        feature_layers=[1, 3],
        moe_lora={"r": 4, "layers_to_transform": [0, 3]},
        use_image_head=False,
        base_model_name_or_path="some/clip",
    )
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, MoECLIPConfig)
    assert again.to_json_string() == config.to_json_string()
    assert again.feature_layers == (1, 3)
    assert again.moe_lora["layers_to_transform"] == [0, 3]


def test_a_file_that_holds_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(
        ValueError, match=r"config.json must hold a JSON object, \{...\}, but holds list: use the one that"
    ):
        MoECLIPConfig.from_pretrained(tmp_path)


def test_no_experts():
    assert MoECLIPConfig(moe_lora=None).moe_lora is None


def test_a_full_moe_lora_config_is_accepted():
    assert MoECLIPConfig(moe_lora=MoELoraConfig(r=2).to_dict()).moe_lora["r"] == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"featur_layers": (1,)}, "Unknown key 'featur_layers'"),
        ({"model_type": "clip"}, r"`model_type` \('clip'\) must be 'moeclip': build a fresh model .*from_clip"),
        ({"moe_lora": {"rank": 4}}, "Unknown key 'rank' in `moe_lora`"),
        ({"moe_lora": {"r": 257}}, r"`r` \(257\) must not exceed the 256 input features"),
        ({"moe_lora": {"r": 205, "num_experts": 5}}, r"`r` \(205\) must not exceed the 204 input features"),
        ({"moe_lora": {"r": "8"}}, "`r` \\('8'\\) must be a whole number"),
        ({"moe_lora": {"r": 2.5}}, r"`r` \(2.5\) must be a whole number"),
        ({"moe_lora": {"adapter_weight": None}}, r"`adapter_weight` \(None\) must be a number"),
        ({"moe_lora": {"layers_to_transform": [0, "1"]}}, "`layers_to_transform` .* must hold whole numbers"),
        ({"moe_lora": {"r": 0}}, r"`r` \(0\) must be at least 1"),
        ({"moe_lora": {"num_experts": 0}}, r"`num_experts` \(0\) must be at least 1"),
        (
            {"moe_lora": {"num_experts_per_tok": 5}},
            r"`num_experts_per_tok` \(5\) must be between 1 and `num_experts` \(4\)",
        ),
        ({"moe_lora": {"lora_dropout": 1.0}}, r"`lora_dropout` \(1.0\) must be in \[0, 1\)"),
        ({"moe_lora": {"adapter_weight": 1.5}}, r"`adapter_weight` \(1.5\) must be in \[0, 1\]"),
        (
            {"moe_lora": {"layers_to_transform": [24]}},
            "`layers_to_transform` holds 24, but the vision tower's layers are 0",
        ),
        ({"moe_lora": {"layers_to_transform": [-1]}}, r"`layers_to_transform` \(\[-1\]\) must hold 0-based"),
        ({"moe_lora": {"layers_to_transform": []}}, r"`layers_to_transform` \(\[\]\) must hold .* at least one"),
        ({"feature_layers": (5, 24)}, "`feature_layers` holds 24"),
        ({"feature_layers": ()}, "must name at least one"),
        ({"feature_layers": (5, 5)}, "ascending order, without repeats"),
        ({"feature_layers": (11, 5)}, "ascending order"),
        ({"patch_average_kernel_sizes": (1, 2)}, "must be odd numbers of patches"),
        ({"patch_average_kernel_sizes": (3, 5)}, "the first one 1"),
        ({"patch_average_kernel_sizes": (1, 3, 3)}, "must not repeat"),
        ({"patch_projection_act": "lelu"}, "must be None or an activation"),
        (
            {"vision_config": {"hidden_act": "glue"}},
            r"`hidden_act` \('glue'\) of `vision_config` must be an activation",
        ),
        ({"text_config": {"hidden_act": "glue"}}, r"`hidden_act` \('glue'\) of `text_config` must be an activation"),
        (
            {"vision_config": {"image_size": 500, "patch_size": 14}},
            r"`image_size` \(500\) must be a multiple .*: use 490 or 504",
        ),
    ],
)
def test_rules(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        MoECLIPConfig(**fields)
    assert "\n" not in str(error.value)


def test_rank_may_reach_the_smallest_chunk():
    assert MoECLIPConfig(moe_lora={"r": 204, "num_experts": 5}).moe_lora["r"] == 204


def test_wrong_types_are_refused():
    with pytest.raises(Exception, match="projection_dim"):
        MoECLIPConfig(projection_dim="wide")


def test_adapter_config_round_trip(tmp_path):
    config = MoELoraConfig(r=4, num_experts=3, layers_to_transform=[3, 1, 3])
    assert config.layers_to_transform == [1, 3]
    config.save_pretrained(tmp_path)
    again = MoELoraConfig.from_pretrained(tmp_path)
    assert type(again) is MoELoraConfig
    assert again.to_dict() == config.to_dict()
