"""Turns a finished demo run into the adapters that travel with the package.

`python -m moeclip_hf.demo.shipping outputs/demo` writes them beside the tiny CLIP, adapters only, with a card.
"""

import json
import os
import sys
from pathlib import Path

from .. import MoECLIPForAnomalyDetection, MoECLIPProcessor
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

```python
from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.demo import DEMO_MODEL

model = MoECLIPForAnomalyDetection.from_pretrained(DEMO_MODEL)
processor = MoECLIPProcessor.from_pretrained(DEMO_MODEL)
```

Input: {image_size} x {image_size} pixels. Results of that run on the benchmark's other half, objects never seen in
training, by the paper's protocol (percent):

```
{table}
```

Written by `python -m moeclip_hf.demo.shipping outputs/demo`.
"""


def ship_adapters(run_folder: str | os.PathLike, target: str | os.PathLike = DEMO_MODEL) -> None:
    """Saves a run's adapters without the CLIP under them, which is named by its place beside them.

    Args:
        run_folder (`str` or `os.PathLike`): Output folder of `moeclip demo`.
        target (`str` or `os.PathLike`, *optional*): The folder to write.

    Raises:
        OSError: If the run's files are missing.
    """
    run_folder, target = Path(run_folder), Path(target)
    results = json.loads((run_folder / "results.json").read_text())
    model = MoECLIPForAnomalyDetection.from_pretrained(run_folder / "model")
    model.config.base_model_name_or_path = f"../{Path(DEMO_CLIP).name}"
    model.save_pretrained(target, adapters_only=True)
    MoECLIPProcessor.from_pretrained(run_folder / "model").save_pretrained(target)
    _leave_code_out(target)
    meta = results["meta"]
    card = CARD.format(seed=meta["seed"], image_size=meta["image_size"], table=format_table(results))
    (target / "README.md").write_text(card)


def _leave_code_out(folder: Path) -> None:
    """Removes the copies of the package's code, which stands two folders up, and the entries that name them."""
    for file in folder.glob("*.py"):
        file.unlink()
    for file in folder.glob("*config.json"):
        content = json.loads(file.read_text())
        for part in [content, *content.values()]:
            if isinstance(part, dict):
                part.pop("auto_map", None)
                part.pop("custom_pipelines", None)
        file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    ship_adapters(sys.argv[1])
