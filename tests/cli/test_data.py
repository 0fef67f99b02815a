"""`moeclip data check` from the command line: what it prints, and its exit codes."""

import datasets
import numpy as np
import pytest
from PIL import Image

from moeclip_hf.cli import main


@pytest.fixture
def parts(tmp_path):
    """Plain folders with three pictures."""
    for number, kind in enumerate(["good", "dent", "dent"]):
        folder = tmp_path / "parts" / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9), 50 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "parts"


def check(*arguments):
    return main(["data", "check", *map(str, arguments)])


def test_sound_data(parts, capsys):
    assert check(parts) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        str(parts),
        "class  normal  anomalous",
        "parts       1          2",
        "Note: no masks: the pixel metrics are undefined, and training takes the image labels alone.",
        "All is as expected.",
    ]
    assert "reading: 100%" in captured.err


def test_differences_have_exit_code_1(parts, capsys):
    (parts / "dent" / "2.png").write_bytes(b"none")
    assert check(parts) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == [
        "1 difference:",
        f"  {parts}/dent/2.png: not a picture that Pillow can read; replace it or take it out.",
    ]


def test_strict_stops_with_one_line(parts, capsys):
    (parts / "dent" / "1.png").write_bytes(b"none")
    assert check(parts, "--strict") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith(f"moeclip: error: {parts}/dent/1.png: not a picture")


def test_benchmark_with_its_root(parts, capsys, tmp_path, monkeypatch):
    (parts / "images").mkdir()
    (parts / "dent" / "1.png").rename(parts / "images" / "1.png")
    assert check("kvasir", parts) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"Kvasir in {parts}\n")
    assert "kvasir  0 of 0  1 of 1000" in out
    assert f"{parts}/images/1.png: has no mask." in out
    monkeypatch.chdir(tmp_path)  # a folder that has the benchmark's name
    parts.rename(tmp_path / "kvasir")
    assert check("kvasir", "kvasir") == 1
    assert capsys.readouterr().out.startswith("Kvasir in kvasir\n")


def test_list_of_a_benchmark(parts, capsys):
    (parts / "l.csv").write_text("image_path,label,class_name\ndent/1.png,1,Kvasir\n")
    assert check("kvasir", parts, "--list", parts / "l.csv") == 1
    assert "kvasir  0 of 0  1 of 1000" in capsys.readouterr().out


def test_data_set_by_its_columns(tmp_path, capsys):
    table = datasets.Dataset.from_dict(
        {"photo": [Image.new("RGB", (4, 4))] * 2, "state": ["good", "bad"], "part": ["cap", "lid"]},
        features=datasets.Features(
            {"photo": datasets.Image(), "state": datasets.Value("string"), "part": datasets.Value("string")}
        ),
    )
    table.save_to_disk(tmp_path / "saved")
    columns = ["--image-column", "photo", "--label-column", "state", "--class-column", "part"]
    assert check(tmp_path / "saved", *columns) == 0
    assert capsys.readouterr().out.splitlines()[1:5] == [
        "class   normal  anomalous",
        "cap          1          0",
        "lid          0          1",
        "in all       1          1",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["visa"], "the benchmark 'visa' needs `root`, the folder where it lies"),
        (["visa", "nowhere"], "`root` 'nowhere' is not a folder: give the one where VisA lies"),
        (["visa", "."], "has no pictures of VisA: looked for candle/Data/Images/Normal"),
        (["nowhere"], "`data` 'nowhere' does not exist"),
        (["nobody/nothing"], "'nobody/nothing' is no file or folder here and cannot be had from the Hub"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert check(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moeclip: error: ")
    assert message in line


def test_the_group_wants_a_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["data"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        main(["data", "check", "--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("mvtec", "kvasir", "ROOT", "--list", "--strict", "--label-column", "Exit"))
