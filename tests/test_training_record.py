import json
import subprocess
import sys

import pytest
from huggingface_hub.errors import EntryNotFoundError

from moeclip_hf import training_record
from moeclip_hf.training_record import (
    TRAINING_RECORD_KEYS,
    TRAINING_RECORD_NAME,
    read_training_record,
    write_training_record,
)


RECORD = dict.fromkeys(TRAINING_RECORD_KEYS) | {"preset": "paper", "class_names": ["bolt", "nut"]}


def test_round_trip(tmp_path):
    write_training_record(tmp_path / "model", RECORD)
    assert TRAINING_RECORD_NAME == "training.json"
    assert read_training_record(tmp_path / "model") == RECORD
    assert read_training_record(str(tmp_path), subfolder="model") == RECORD


def test_folder_without_a_record(tmp_path):
    assert read_training_record(tmp_path) is None


def test_record_lacking_a_key(tmp_path):
    with pytest.raises(ValueError, match="`record` lacks 'seed': a training record says preset, seed"):
        write_training_record(tmp_path, {name: value for name, value in RECORD.items() if name != "seed"})
    assert not list(tmp_path.iterdir())
    (tmp_path / "training.json").write_text('{"preset": "paper"}')
    with pytest.raises(ValueError, match="training.json lacks 'seed'"):
        read_training_record(tmp_path)
    (tmp_path / "training.json").write_text('{"preset": ')
    with pytest.raises(ValueError, match="training.json is no JSON"):
        read_training_record(tmp_path)


def write_cache(folder, revision="main"):
    """The Hub's cache of a repository with a record."""
    repository, commit = folder / "models--somebody--moeclip", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "training.json").write_text(json.dumps(RECORD))


def test_record_of_a_hub_id(tmp_path):
    write_cache(tmp_path, revision="v2")
    assert read_training_record("somebody/moeclip", revision="v2", cache_dir=tmp_path) == RECORD


def test_hub_without_connection_is_said(tmp_path, caplog):
    assert read_training_record("somebody/moeclip", cache_dir=tmp_path) is None
    assert "somebody/moeclip: there is no connection to the Hub" in caplog.text


def test_hub_repository_without_a_record(monkeypatch, caplog):
    def answer(*args, **kwargs):
        raise EntryNotFoundError("404")

    monkeypatch.setattr(training_record, "hf_hub_download", answer)
    assert read_training_record("somebody/moeclip") is None
    assert not caplog.text


def test_name_that_is_neither_folder_nor_id(tmp_path):
    with pytest.raises(ValueError, match="no_such"):
        read_training_record(tmp_path / "no_such" / "folder")


def test_core_packages_are_enough():
    # As in the console command, where the package does not register its classes with transformers, which imports what
    # it finds installed.
    code = (
        "import sys; sys.argv = ['moeclip']; import moeclip_hf.training_record\n"
        "beyond = {'accelerate', 'datasets', 'scipy'} & set(sys.modules)\n"
        "assert not beyond, beyond"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
