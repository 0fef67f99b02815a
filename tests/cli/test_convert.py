"""`moeclip convert` on files of every kind, as a user types it."""

import pytest
import reference
import torch
from reference import Case
from safetensors.torch import save_file

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.cli import main


CASE = Case()
SIZES = ["--image-size", "56", "--feature-layers", "0", "1", "2", "3", "--layers-to-transform", "0", "1", "2", "3"]


@pytest.fixture
def files(tmp_path):
    save_file(reference.random_clip(CASE), tmp_path / "clip.safetensors")
    torch.save({"epoch": 3, **reference.random_checkpoint(CASE)}, tmp_path / "moe.pth")
    return tmp_path


def run(files, *arguments, clip="clip.safetensors", checkpoint="moe.pth"):
    return main(
        [
            "convert",
            "--clip",
            str(files / clip),
            "--checkpoint",
            str(files / checkpoint),
            "--output",
            str(files / "out"),
        ]
        + list(arguments)
    )


def test_the_folder_holds_the_converted_model(files):
    assert run(files, *SIZES, "--lora-alpha", "8") == 0
    model = MoECLIPForAnomalyDetection.from_pretrained(files / "out")
    batch = reference.random_batch(CASE)
    expected = reference.forward(CASE, reference.random_clip(CASE), reference.random_checkpoint(CASE), batch)
    torch.testing.assert_close(model(**batch).loss, expected["loss"], rtol=1e-5, atol=0)


def test_pytorch_files_of_the_clip_and_a_processor(files, tiny_tokenizer):
    torch.save({"state_dict": reference.random_clip(CASE)}, files / "clip.pt")
    tiny_tokenizer.save_pretrained(files / "tokenizer")
    assert run(files, *SIZES, "--tokenizer", str(files / "tokenizer"), clip="clip.pt") == 0
    processor = MoECLIPProcessor.from_pretrained(files / "out")
    assert processor(images=torch.zeros(3, 80, 70), return_tensors="pt")["pixel_values"].shape == (1, 3, 56, 56)


class Rigged:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: (files / "moe.pth").unlink(), "no such file"),
        (lambda files: (files / "moe.pth").write_text("{}"), "no plain file of tensors"),
        (lambda files: (files / "clip.safetensors").write_bytes(b"\x00" * 20), "clip.safetensors: a file is damaged"),
        (lambda files: torch.save(Rigged(), files / "moe.pth"), "no plain file of tensors"),
        (lambda files: torch.save([1], files / "moe.pth"), "expected a dictionary"),
        (lambda files: torch.save({"epoch": 3}, files / "moe.pth"), "has no 'text_adapter'"),
    ],
)
def test_bad_files_are_one_line(files, capsys, damage, message):
    damage(files)
    assert run(files, *SIZES) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("moeclip: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert "code ran" not in printed.out
    assert not (files / "out").exists()


def test_sizes_that_do_not_fit_are_one_line(files, capsys):
    assert run(files, *SIZES[2:], "--image-size", "60") == 1
    assert "use 56 or 70" in capsys.readouterr().err
