"""Measures MoECLIP's cost as ratios to the bare CLIP vision tower, on random weights.

    python examples/benchmark.py                                    # ViT-L/14 at 518 pixels, CPU, float32
    python examples/benchmark.py --device cuda --dtype bfloat16

Bare tower and whole model take turns, so that a noisy machine slows both; each ratio is the median over the rounds. The
two share their weights, so that the peak memory is that of one model. Only the package's core requirements are needed.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
from transformers import CLIPVisionModel

from moeclip_hf import MoECLIPConfig, MoECLIPForAnomalyDetection
from moeclip_hf.processing_moeclip import resize_anomaly_map, smooth_anomaly_logits


NUM_PROMPTS = 16


def main(argv: list[str] | None = None) -> dict:
    """Runs the benchmark and prints its figures."""
    args = parse_arguments(argv)
    torch.manual_seed(0)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    config = MoECLIPConfig() if args.config is None else MoECLIPConfig.from_pretrained(args.config)
    model = MoECLIPForAnomalyDetection(config).to(device).eval()
    bare = share_tower(model)
    autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)

    results = {"device": device_name(device), "dtype": args.dtype, "image_size": config.vision_config.image_size}
    with autocast:
        results |= inference_figures(model, bare, args.rounds)
        results |= training_figures(model, bare, args.batch_size, args.rounds)
    results["peak_memory_gb"] = peak_memory(device) / 1e9
    for name, value in results.items():
        print(f"{name:28} {value:.3f}" if isinstance(value, float) else f"{name:28} {value}")
    if args.output is not None:
        with open(args.output, "w") as file:
            json.dump(results, file, indent=2)
    return results


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Measures MoECLIP's cost as ratios to the bare CLIP vision tower.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="precision")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default: 5)")
    parser.add_argument("--batch-size", type=int, default=2, help="images of a training step (default: 2)")
    parser.add_argument("--config", metavar="FOLDER", help="folder of another model's config.json (default: ViT-L/14)")
    parser.add_argument("--output", metavar="FILE", help="write the figures to a JSON file")
    return parser.parse_args(argv)


def share_tower(model: MoECLIPForAnomalyDetection) -> CLIPVisionModel:
    """A plain CLIP vision tower on the model's own weights, which come without experts."""
    with torch.device("meta"):
        bare = CLIPVisionModel(model.config.vision_config)
    weights = {
        name: weight
        for name, weight in model.vision_model.state_dict(keep_vars=True).items()
        if ".moe_lora." not in name
    }
    bare.load_state_dict(weights, assign=True)
    bare.embeddings.position_ids = model.vision_model.embeddings.position_ids
    return bare.eval().requires_grad_(
        False
    )  # loading has asked for gradients of the weights, which are the model's too


def inference_figures(model: MoECLIPForAnomalyDetection, bare: CLIPVisionModel, rounds: int) -> dict:
    """One image: bare tower against the whole model with maps at the image's size, texts encoded beforehand."""
    pixel_values = random_images(model, 1)
    image_size = pixel_values.shape[-1]
    text_embeds = torch.nn.functional.normalize(torch.randn(1, 2, model.config.projection_dim), dim=-1).to(
        model.device
    )

    @torch.inference_mode()
    def whole():
        output = model(pixel_values, text_embeds=text_embeds)
        return resize_anomaly_map(smooth_anomaly_logits(output.anomaly_logits), image_size)

    bare_seconds, whole_seconds, ratio = compare(lambda: forward(bare, pixel_values), whole, rounds)
    return {"bare_image_seconds": bare_seconds, "inference_seconds": whole_seconds, "inference_ratio": ratio}


def training_figures(model: MoECLIPForAnomalyDetection, bare: CLIPVisionModel, batch_size: int, rounds: int) -> dict:
    """One optimizer step with every loss of the paper against the bare forward of the same batch."""
    pixel_values = random_images(model, batch_size)
    labels = torch.arange(batch_size, device=model.device) % 2
    masks = torch.zeros(batch_size, *pixel_values.shape[-2:], device=model.device)
    masks[1::2, : masks.shape[1] // 4, : masks.shape[2] // 4] = 1
    prompt_embeds = torch.randn(1, NUM_PROMPTS, model.config.text_config.hidden_size, device=model.device)
    prompt_state = torch.tensor([0] * 6 + [1] * (NUM_PROMPTS - 6), device=model.device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=5e-4, betas=(0.5, 0.999))
    model.train()

    def step():
        output = model(
            pixel_values, prompt_embeds=prompt_embeds, prompt_state=prompt_state, labels=labels, mask_labels=masks
        )
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()

    bare_seconds, step_seconds, ratio = compare(lambda: forward(bare, pixel_values), step, rounds)
    return {"bare_batch_seconds": bare_seconds, "training_step_seconds": step_seconds, "training_ratio": ratio}


def random_images(model: MoECLIPForAnomalyDetection, batch_size: int) -> torch.Tensor:
    """Normalised noise of the model's input size."""
    size = model.config.vision_config.image_size
    return torch.randn(batch_size, 3, size, size).to(model.device)


@torch.inference_mode()
def forward(bare: CLIPVisionModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """The bare tower's last hidden state."""
    return bare(pixel_values).last_hidden_state


def compare(first: Callable, second: Callable, rounds: int) -> tuple[float, float, float]:
    """Times two functions in turns, after one round to warm up: median seconds of each and median ratio."""
    seconds = [(timed(first), timed(second)) for _ in range(rounds + 1)][1:]
    ratios = [slow / fast for fast, slow in seconds]
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    return medians[0], medians[1], statistics.median(ratios)


def timed(function: Callable) -> float:
    """Seconds that one call takes, the device's queue included."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Waits for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: the accelerator's allocations, or the whole process's resident set on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
