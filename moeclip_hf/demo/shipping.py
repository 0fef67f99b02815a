"""Turns a finished demo run into the adapters that travel with the package.

`python -m moeclip_hf.demo.shipping outputs/demo` writes them beside the tiny CLIP: adapters only, with the run's
training record and a card. The same run gives the same files.
"""

import argparse
import json
import os
from pathlib import Path

from .. import MoECLIPForAnomalyDetection, MoECLIPProcessor
from ..json_file import read_json_object
from ..model_card import describe_training
from ..training_record import TRAINING_RECORD_NAME, read_training_record, write_training_record
from . import DEMO_CLIP, DEMO_MODEL
from .table import format_table


CARD = """\
---
library_name: transformers
license: apache-2.0
tags:
- anomaly-detection
- zero-shot
- moe
- lora
---

# tiny_moeclip

MoECLIP adapters on the tiny CLIP beside them (`../tiny_clip`), as `moeclip demo --seed {seed}` trains them on one half
of the procedural benchmark and on further drawn patterns. They make the README's first example run offline. They are
for demonstration: small, and trained on drawn pictures only. For real work train on a real CLIP.

Judge a picture by its map, for example by the map's maximum, rather than by `score`, which is the image head's alone.
One in seven of the pictures that the head learnt from is flawless: with seed 111 it ranks pictures worse than the map's
maximum does on the benchmark's other half, and new ones of the objects trained on even the wrong way round.

```python
from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.demo import DEMO_MODEL

model = MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL)
processor = MoECLIPProcessor.from_pretrained(DEMO_MODEL)
```

## Training

{training}

## Results

Input: {image_size} x {image_size} pixels. Results of that run on the benchmark's other half, objects never seen in
training, by the paper's protocol (percent):

```
{table}
```

Written by `python -m moeclip_hf.demo.shipping outputs/demo`.
"""


# What a saved folder says of where it was written and of the code beside it, which here stands two folders up.
TRACES = ("auto_map", "custom_pipelines", "is_local", "local_files_only")


def ship_adapters(run_folder: str | os.PathLike, target: str | os.PathLike = DEMO_MODEL) -> None:
    """Saves a run's adapters without the CLIP under them, which is named by its place beside them.

    Args:
        run_folder (`str` or `os.PathLike`): Output folder of `moeclip demo`.
        target (`str` or `os.PathLike`, *optional*): The folder to write.

    Raises:
        OSError: If the run's files are missing.
        ValueError: If one of them is damaged.
    """
    run_folder, target = Path(run_folder), Path(target)
    results = read_json_object(run_folder / "results.json")
    record = read_training_record(run_folder / "model")
    if record is None:
        raise FileNotFoundError(f"{run_folder / 'model'} has no {TRAINING_RECORD_NAME}: run `moeclip demo` anew.")
    clip = Path(DEMO_CLIP)
    model = MoECLIPForAnomalyDetection.from_pretrained(run_folder / "model")
    model.config.base_model_name_or_path = f"../{clip.name}"
    model.save_pretrained(target, adapters_only=True)
    MoECLIPProcessor.from_pretrained(run_folder / "model").save_pretrained(target)
    _leave_traces_out(target)
    # The run names its CLIP by the place where the package lay.
    write_training_record(target, record | {"clip": str(clip.relative_to(clip.parents[2]))})
    card = CARD.format(
        seed=record["seed"],
        training=describe_training(record, has_recipe=False),
        image_size=record["image_size"],
        table=format_table(results),
    )
    (target / "README.md").write_text(card)


def _leave_traces_out(folder: Path) -> None:
    """Removes the copies of the package's code, and what would differ from machine to machine."""
    for file in folder.glob("*.py"):
        file.unlink()
    for file in folder.glob("*config.json"):
        content = json.loads(file.read_text())
        for part in [content, *content.values()]:
            if isinstance(part, dict):
                for name in TRACES:
                    part.pop(name, None)
        file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Ships the run that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m moeclip_hf.demo.shipping", description=__doc__)
    parser.add_argument("run_folder", metavar="FOLDER", help="output folder of `moeclip demo`")
    ship_adapters(parser.parse_args().run_folder)


if __name__ == "__main__":
    main()
