"""MoECLIP in a bare Accelerate loop: everything that `examples/train.py` leaves to the Trainer stands here in the open.

    accelerate launch examples/train_no_trainer.py \
        --clip openai/clip-vit-large-patch14-336 --data my_data --output outputs/my_model

One thing is special to MoECLIP: the text tower is frozen, so the prompts' features are computed once per object before
the loop. The rest is any training loop: change it as you like.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.data import (
    AffineAugmentation,
    AnomalyDetectionDataset,
    collate_anomaly_samples,
    load_anomaly_dataset,
)
from moeclip_hf.evaluation import evaluate_model, format_results


def parse_options():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", required=True, help="pretrained CLIP, a Hub id or a folder")
    parser.add_argument("--data", required=True, help="training data: a folder in MVTec layout or a list")
    parser.add_argument("--validation-data", help="other data, measured after each epoch")
    parser.add_argument("--root", help="what a list's paths are relative to")
    parser.add_argument("--output", required=True, help="folder for the model")
    parser.add_argument("--image-size", type=int, help="input size in pixels, a multiple of CLIP's patch")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max-steps", type=int, help="stop after so many steps")
    parser.add_argument("--batch-size", type=int, default=2, help="images a step and process")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=111)
    return parser.parse_args()


def build_model(options):
    """A frozen CLIP with fresh adapters, and the processor of its inputs."""
    model = MoECLIPForAnomalyDetection.from_clip(options.clip, image_size=options.image_size)
    return model, MoECLIPProcessor.from_clip(options.clip, model.config)


def encode_objects(model, processor, object_names, device):
    """The frozen features of every object's prompts, (num_objects, num_prompts, text_hidden), and the prompts' states."""
    prompts = [processor(object_names=name).to(device) for name in object_names]
    embeds = [model.get_prompt_embeds(one["input_ids"], one["attention_mask"]) for one in prompts]
    return torch.cat(embeds), prompts[0]["prompt_state"]


def halve_at(milestones):
    """The paper's schedule: the rate is halved at each milestone."""
    return lambda step: 0.5 ** sum(step >= milestone for milestone in milestones)


def training_function(options):
    """Trains, measures and saves a model."""
    # On a machine without a GPU, several processes find each other only if they are told to stay on the CPU.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    set_seed(options.seed)

    # 1. Model and data. The augmentation follows from (seed, epoch, index), whatever the processes and workers do.
    model, processor = build_model(options)
    train_dataset = AnomalyDetectionDataset(
        load_anomaly_dataset(options.data, root=options.root),
        processor.image_processor,
        AffineAugmentation(options.seed),
    )
    train_loader = DataLoader(
        train_dataset,
        batch_size=options.batch_size,
        shuffle=True,
        collate_fn=collate_anomaly_samples,
        generator=torch.Generator().manual_seed(options.seed),
    )

    # 2. Adam on what is trained: experts, projections, image head and text adapter; CLIP is frozen.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=options.learning_rate, betas=(0.5, 0.999))
    # Accelerate steps a prepared schedule once per process, to keep pace with the data; ours counts optimizer steps.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, halve_at((16000, 32000)))

    # 3. Devices and processes. The prompts' features are computed before the model is wrapped, once per object.
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    prompt_embeds, prompt_state = encode_objects(
        accelerator.unwrap_model(model), processor, train_dataset.object_names, accelerator.device
    )

    # 4. The loop.
    num_steps = min(options.max_steps or 10**9, options.epochs * len(train_loader))
    progress, step = tqdm(total=num_steps, disable=not accelerator.is_local_main_process), 0
    for epoch in range(options.epochs):
        train_dataset.set_epoch(epoch)
        model.train()
        for batch in train_loader:
            # The rows of the batch's objects in the table, each once.
            rows, object_ids = batch.pop("object_ids").unique(return_inverse=True)
            outputs = model(
                **batch, object_ids=object_ids, prompt_embeds=prompt_embeds[rows], prompt_state=prompt_state
            )
            accelerator.backward(outputs.loss)
            # The experts start at zero, where their first gradient is huge: without clipping Adam would remember it.
            accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            progress.update()
            progress.set_postfix(loss=f"{outputs.loss.item():.3f}", segmentation=f"{outputs.segmentation_loss:.3f}")
            if step >= num_steps:
                break
        # 5. The benchmark's metrics on other data: every process measures its share of the images.
        if options.validation_data is not None:
            validation = load_anomaly_dataset(options.validation_data, root=options.root)
            results = evaluate_model(accelerator.unwrap_model(model), processor, validation, progress=False)
            if accelerator.is_main_process:
                progress.write(format_results(results))
        if step >= num_steps:
            break
    progress.close()

    # 6. The whole model and its processor, for `from_pretrained` and `moeclip evaluate`.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(options.output)
        processor.save_pretrained(options.output)
    accelerator.end_training()


if __name__ == "__main__":
    training_function(parse_options())
