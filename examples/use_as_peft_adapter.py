"""MoECLIP's experts as a PEFT adapter: attached to the vision tower of a plain CLIP, trained, saved, loaded, switched.

    python examples/use_as_peft_adapter.py --output outputs/adapter
    python examples/use_as_peft_adapter.py --clip openai/clip-vit-base-patch32 --layers 2 5 8 11 --output outputs/adapter

The task is a toy one: to tell pictures of noise from smooth ones by the image embedding. What matters is that the
experts are used as any other PEFT adapter, and that nothing of the anomaly detector around them is needed.
"""

import argparse
import copy

import torch
from peft import PeftModel, get_peft_model
from transformers import CLIPModel

from moeclip_hf import MoELoraConfig
from moeclip_hf.demo import DEMO_CLIP


def draw_batch(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws four pictures, two of them noise (label 1), two smooth (label 0)."""
    noise, coarse = (torch.randn(2, 3, side, side, generator=generator) for side in (size, 4))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return torch.cat([smooth, noise]), torch.tensor([0, 0, 1, 1])


def train(model: PeftModel, steps: int) -> list[float]:
    """Trains the experts to move the two kinds of pictures apart; returns the loss of each step."""
    size, generator = model.config.image_size, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    model.train()
    for _ in range(steps):
        pixel_values, labels = draw_batch(size, generator)
        embeds = torch.nn.functional.normalize(model(pixel_values=pixel_values).pooler_output, dim=-1)
        prototypes = torch.stack([embeds[labels == label].mean(0) for label in (0, 1)])
        loss = torch.nn.functional.cross_entropy(10 * embeds @ prototypes.T, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # the first gradient of the experts is huge
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(argv: list[str] | None = None) -> None:
    """Runs the example and prints what happens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default=DEMO_CLIP, help="Hub id or folder of a CLIP (default: the packaged one)")
    parser.add_argument("--layers", type=int, nargs="+", help="0-based layers that get experts (default: all)")
    parser.add_argument("--steps", type=int, default=8, help="steps of training (default: 8)")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the adapter is saved")
    args = parser.parse_args(argv)

    # 1. attach
    torch.manual_seed(0)
    tower = CLIPModel.from_pretrained(args.clip).vision_model
    pixel_values, _ = draw_batch(tower.config.image_size, torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = tower(pixel_values).pooler_output
    another = copy.deepcopy(tower)
    model = get_peft_model(tower, MoELoraConfig(r=4, layers_to_transform=args.layers))
    model.print_trainable_parameters()

    # 2. train and save: the folder holds the experts alone
    losses = train(model, args.steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    model.save_pretrained(args.output)

    # 3. load onto a fresh tower, beside a second, untrained adapter, and switch between them
    again = PeftModel.from_pretrained(another, args.output, adapter_name="trained")
    again.add_adapter("untrained", MoELoraConfig(r=4, layers_to_transform=args.layers))
    again.eval()
    with torch.no_grad():
        trained = model.eval()(pixel_values=pixel_values).pooler_output
        for name in ("trained", "untrained"):
            again.set_adapter(name)
            same = torch.equal(again(pixel_values=pixel_values).pooler_output, trained)
            print(f"{name}: embeddings equal those before saving: {same}")
        with again.disable_adapter():
            same = torch.equal(again(pixel_values=pixel_values).pooler_output, plain)
            print(f"disabled: embeddings equal the plain CLIP's: {same}")


if __name__ == "__main__":
    main()
