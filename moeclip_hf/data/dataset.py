"""The samples that training and evaluation read from a data set."""

import torch

from ..image_processing_moeclip import MoECLIPImageProcessor
from .augmentation import AffineAugmentation
from .checks import DECODE_ERRORS, UnreadableSampleError, name_picture, open_picture
from .loading import datasets, undecoded


COLUMNS = ("image", "mask", "label", "class_name", "object_name")


class AnomalyDetectionDataset(torch.utils.data.Dataset):
    """Prepared samples: pictures as CLIP reads them, with their masks and the number of their object.

    The mask of a normal picture is 0 throughout wherever any picture of the data set has a mask. It is -100 throughout,
    which means not known, for an anomalous picture without a mask and for every picture of a data set without masks.

    Args:
        dataset (`datasets.Dataset`):
            As [`load_anomaly_dataset`] returns it.
        image_processor ([`MoECLIPImageProcessor`]):
            Prepares the pictures.
        augmentation ([`AffineAugmentation`], *optional*):
            Moves pictures and masks, anew in each epoch.
        mask_threshold (`int`, *optional*, defaults to 0):
            The largest value of a mask's normal pixels: 0 as in the paper, 127 for masks that were saved as JPEG.

    Attributes:
        object_names (`list[str]`): The distinct object names, in the order of their first picture.
        object_ids (`list[int]`): For each picture its row in `object_names`.
        class_names (`list[str]`): For each picture the class under which results are reported.
        mask_threshold (`int`): The mask rule.
        num_unknown_masks (`int`): How many pictures have no known mask and do not enter the segmentation loss.

    Raises:
        ValueError: If the data set is empty or lacks a column, or the threshold is negative.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        image_processor: MoECLIPImageProcessor,
        augmentation: AffineAugmentation | None = None,
        *,
        mask_threshold: int = 0,
    ):
        missing = [column for column in COLUMNS if column not in dataset.column_names]
        if missing:
            raise ValueError(f"`dataset` lacks the columns {missing}: load it with `load_anomaly_dataset`.")
        if len(dataset) == 0:
            raise ValueError("`dataset` is empty.")
        if mask_threshold < 0:
            raise ValueError(f"`mask_threshold` ({mask_threshold}) must be 0 or more.")
        # Pictures are opened here, not by `datasets`, so that an error can name the file.
        self._rows = undecoded(dataset)
        self.mask_threshold = mask_threshold
        self._image_processor = image_processor
        self._augmentation = augmentation
        has_mask = [row["mask"] is not None for row in self._rows.select_columns("mask")]
        self._has_masks = any(has_mask)
        labels = list(dataset["label"])
        is_known = [found or (self._has_masks and not label) for found, label in zip(has_mask, labels, strict=True)]
        self.num_unknown_masks = is_known.count(False)
        # In shared memory, because workers that live through several epochs hold copies of everything else.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.class_names = list(dataset["class_name"])
        object_names = list(dataset["object_name"])
        self.object_names = list(dict.fromkeys(object_names))
        self.object_ids = [self.object_names.index(name) for name in object_names]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        """Prepares one sample.

        Args:
            index (`int`):
                The picture's row.

        Returns:
            `dict`: `pixel_values`, a float32 tensor of shape `(3, height, width)`; `mask_labels`, an int64 tensor of
            shape `(height, width)`, 0 normal, 1 anomalous, -100 not known; `labels`, 0 or 1; `object_ids`, the row of
            the object's name in `object_names`.

        Raises:
            UnreadableSampleError: If the picture or its mask cannot be decoded.
        """
        row = self._rows[index]
        try:
            pixel_values, mask_labels = self._prepare(row)
        except DECODE_ERRORS as error:
            raise UnreadableSampleError(f"{name_picture(row['image'], f'picture {index}')}: {error}") from error
        if self._augmentation is not None:
            pixel_values, mask_labels = self._augmentation(pixel_values, mask_labels, int(self._epoch), index)
        return {
            "pixel_values": pixel_values,
            "mask_labels": mask_labels,
            "labels": int(row["label"]),
            "object_ids": self.object_ids[index],
        }

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the augmentation, also for workers that are running.

        Args:
            epoch (`int`):
                The epoch, counted from 0.
        """
        self._epoch.fill_(epoch)

    def _prepare(self, row: dict) -> tuple[torch.Tensor, torch.Tensor]:
        is_normal_known = row["label"] == 0 and self._has_masks
        mask = None if is_normal_known or row["mask"] is None else open_picture(row["mask"])
        inputs = self._image_processor(
            open_picture(row["image"]), masks=[mask], mask_threshold=self.mask_threshold, return_tensors="pt"
        )
        mask_labels = inputs["mask_labels"][0]
        return inputs["pixel_values"][0], torch.zeros_like(mask_labels) if is_normal_known else mask_labels
