"""Small models and tokenizers that every test can build in a moment, without the network."""

import os


# What follows reads these as it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import string  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer  # noqa: E402

from moeclip_hf import MoECLIPForAnomalyDetection  # noqa: E402


CONTEXT = 64
VOCABULARY = {
    token: index
    for index, token in enumerate(
        [*string.printable.split()[0], *(f"{c}</w>" for c in string.printable.split()[0])]
        + ["<|startoftext|>", "<|endoftext|>"]
    )
}


def build_clip(num_layers=4, image_size=56, patch_size=14, hidden_size=32, seed=0) -> CLIPModel:
    """A random CLIP of a few thousand parameters, whose weights are large enough to matter."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        projection_dim=24,
        vision_config={
            "hidden_size": hidden_size,
            "intermediate_size": 64,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch_size,
            "projection_dim": 24,
        },
        text_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": len(VOCABULARY),
            "max_position_embeddings": CONTEXT,
            "bos_token_id": VOCABULARY["<|startoftext|>"],
            "eos_token_id": VOCABULARY["<|endoftext|>"],
            "projection_dim": 24,
        },
    )
    clip = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return clip


def randomize_adapters(model, seed=0) -> None:
    """Gives routers and experts values, as after some training: a fresh model's experts are all zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def tiny_clip() -> CLIPModel:
    return build_clip()


@pytest.fixture
def tiny_clip_folder(tmp_path, tiny_clip, tiny_tokenizer) -> str:
    folder = tmp_path / "tiny_clip"
    tiny_clip.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=VOCABULARY, merges=[], model_max_length=CONTEXT)


@pytest.fixture
def fresh_model(tiny_clip) -> MoECLIPForAnomalyDetection:
    """A model as training finds it: experts at zero, routers uniform."""
    torch.manual_seed(1)
    return MoECLIPForAnomalyDetection.from_clip(tiny_clip, image_size=56, moe_lora={"r": 4, "lora_alpha": 8})


@pytest.fixture
def tiny_model(fresh_model) -> MoECLIPForAnomalyDetection:
    """A model whose experts and routers have values of their own."""
    randomize_adapters(fresh_model)
    return fresh_model
