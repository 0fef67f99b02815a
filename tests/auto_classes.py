"""Loads saved models through transformers' Auto classes alone, runs them and saves them again.

A script, not a test: another interpreter starts it. `TRUST` is "package", where the package is installed and imported,
or "remote-code", where it is not installed and the code comes from the folders; then follow pairs of a folder to load
and a folder to write, which gets the model, its processor and `outputs.safetensors`.
"""

import importlib.util
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file


OUTPUTS = ("anomaly_logits", "image_score", "image_embeds", "text_embeds")
OPTIONAL = ("datasets", "evaluate", "matplotlib", "pandas", "pytest", "scipy", "sklearn", "tensorboard")


def picture() -> Image.Image:
    """A picture of noise, the same on every call."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8))


def run(model, processor, image_processor) -> dict[str, torch.Tensor]:
    """What a model and its processors make of the picture."""
    inputs = processor(images=picture(), object_names="bolt")
    with torch.no_grad():
        outputs = model(**inputs)
    pixels = image_processor(picture(), return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels, "input_ids": inputs["input_ids"]} | {name: outputs[name] for name in OUTPUTS}


def main(trust: str, *folders: str) -> None:
    if trust == "package":
        import moeclip_hf  # noqa: F401 - all that a user of the Auto classes has to write

        trusted = {}
    else:
        present = [name for name in ("moeclip_hf", *OPTIONAL) if importlib.util.find_spec(name)]
        if present:
            raise SystemExit(f"This environment holds more than the core requirements: {present}.")
        trusted = {"trust_remote_code": True}

    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor

    for source, target in zip(folders[::2], folders[1::2], strict=True):
        config = AutoConfig.from_pretrained(source, **trusted)
        model = AutoModel.from_pretrained(source, **trusted)
        processor = AutoProcessor.from_pretrained(source, **trusted)
        image_processor = AutoImageProcessor.from_pretrained(source, **trusted)
        for thing in (config, model, processor, image_processor):
            home = type(thing).__module__.partition(".")[0]
            if home != ("moeclip_hf" if trust == "package" else "transformers_modules"):
                raise SystemExit(f"{type(thing).__name__} comes from {home}.")
        model.save_pretrained(target)
        processor.save_pretrained(target)
        save_file(run(model, processor, image_processor), f"{target}/outputs.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
