"""A small data set in memory with everything that the trainer asks of one, and a trainer on it."""

import pytest
import torch
from torch.utils.data import Dataset

from moeclip_hf import MoECLIPImageProcessor, MoECLIPProcessor, MoECLIPTrainer, MoECLIPTrainingArguments


class Squares(Dataset):
    """Noise, half of it with a bright square, of two classes; flipped by (epoch, index) when augmented."""

    def __init__(self, length=8, image_size=56, augmented=False, object_names=("bolt", "nut"), unknown_masks=()):
        generator = torch.Generator().manual_seed(length)
        self.images = torch.randn(length, 3, image_size, image_size, generator=generator)
        self.masks = torch.zeros(length, image_size, image_size, dtype=torch.int64)
        for index in range(1, length, 2):
            first = 4 * (index % 5)
            self.masks[index, first : first + 24, first : first + 24] = 1
            self.images[index] += 2 * self.masks[index]
        for index in unknown_masks:
            self.masks[index] = -100
        self.object_names = list(object_names)
        self.object_ids = [index // 2 % len(object_names) for index in range(length)]
        self.class_names = [f"class_{object_id}" for object_id in self.object_ids]
        self.augmented = augmented
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self):
        return len(self.images)

    def set_epoch(self, epoch):
        self.epoch.fill_(epoch)

    def __getitem__(self, index):
        image, mask = self.images[index], self.masks[index]
        if self.augmented:
            turns = (int(self.epoch) + index) % 4
            image, mask = image.rot90(turns, (1, 2)), mask.rot90(turns)
        return {
            "pixel_values": image.contiguous(),
            "mask_labels": mask.contiguous(),
            "labels": index % 2,
            "object_ids": self.object_ids[index],
        }


@pytest.fixture
def processor(tiny_tokenizer) -> MoECLIPProcessor:
    return MoECLIPProcessor(MoECLIPImageProcessor(size=56), tiny_tokenizer)


@pytest.fixture
def make_trainer(tmp_path, processor):
    """Builds a quiet trainer on the CPU; keyword arguments are those of the training arguments."""

    def make(model, train_dataset=None, eval_dataset=None, callbacks=None, **arguments):
        arguments = {
            "output_dir": str(tmp_path / "run"),
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "max_steps": 3,
            **arguments,
        }
        trainer = MoECLIPTrainer(
            model,
            MoECLIPTrainingArguments(**arguments),
            train_dataset=Squares() if train_dataset is None else train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processor,
            callbacks=callbacks,
        )
        return trainer

    return make


def get_logged(trainer, name: str) -> list[float]:
    """The values of one quantity, in the order they were logged."""
    return [line[name] for line in trainer.state.log_history if name in line]
