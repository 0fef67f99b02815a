"""What the trainer writes for the Hub and sends there; the Hub itself is that of `test_hub_round_trip.py`."""

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor, MoECLIPTrainingArguments
from moeclip_hf.hub import build_repository, write_repository
from moeclip_hf.training import trainer as trainer_module


@pytest.fixture
def pushed(monkeypatch):
    """Collects what would be sent: (files, repository, arguments) of each push."""
    calls = []

    def push_repository(files, repo_id, **arguments):
        calls.append((files, repo_id, arguments))
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(trainer_module, "push_repository", push_repository)
    return calls


@pytest.fixture
def trained(fresh_model, make_trainer, monkeypatch):
    trainer = make_trainer(fresh_model, train_data="/data/secret/bolts", hub_model_id="user/bolts")

    def init_hf_repo(token=None, private=None):
        trainer.hub_model_id = "user/bolts"

    monkeypatch.setattr(trainer, "init_hf_repo", init_hf_repo)
    trainer.train()
    return trainer


def test_push_sends_what_moeclip_push_would(trained, pushed, tmp_path):
    assert trained.push_to_hub() == "https://hub/user/bolts"
    ((files, repo_id, arguments),) = pushed
    assert repo_id == "user/bolts"
    assert arguments == {"private": False, "token": None, "revision": None, "commit_message": "End of training"}
    assert files == build_repository(trained.args.output_dir, "user/bolts")
    write_repository(files, tmp_path / "out")
    model = MoECLIPForAnomalyDetection.from_pretrained(tmp_path / "out")
    MoECLIPProcessor.from_pretrained(tmp_path / "out")
    assert all(experts.lora_B.abs().sum() > 0 for experts in model.moe_lora_layers().values())
    assert json.loads(files["training.json"])["data"] == "bolts"
    assert not any(name.endswith((".bin", ".pt")) for name in files)


def test_push_arguments(trained, pushed):
    future = trained.push_to_hub("My run", blocking=False, token="hf_x", revision="dev", private=True)
    assert isinstance(future, Future)
    assert future.result(timeout=120) == "https://hub/user/bolts"
    assert pushed[0][2] == {"private": True, "token": "hf_x", "revision": "dev", "commit_message": "My run"}


def test_card(trained):
    folder = Path(trained.args.output_dir)
    figures = {"image_auroc": 0.5, "image_ap": None, "pixel_auroc": None, "pixel_ap": None}
    results = {"mean": figures, "classes": {"gear": figures}, "meta": {"data": "gears", "image_size": 56}}
    (folder / "gears.json").write_text(json.dumps(results))
    trained.create_model_card()
    card = (folder / "README.md").read_text()
    assert 'from_pretrained("user/bolts"' in card
    assert "| data | bolts |" in card
    assert "| recipe | paper |" in card
    assert "| steps | 3 |" in card
    assert "| gears | 50.0 | - | - | - |" in card
    assert "/data" not in card


def test_saving_pushes_if_asked(trained, pushed):
    trained.args.push_to_hub = True
    trained.save_model()
    assert len(pushed) == 1
    assert pushed[0][2]["commit_message"] == "Model save"


def test_checkpoints_are_not_pushed(tmp_path):
    assert MoECLIPTrainingArguments(str(tmp_path), push_to_hub=True, use_cpu=True).hub_strategy == "end"
    with pytest.raises(ValueError, match="`hub_strategy` .every_save. must be 'end'"):
        MoECLIPTrainingArguments(str(tmp_path), push_to_hub=True, hub_strategy="every_save", use_cpu=True)


def test_adapters_on_a_local_clip_are_not_pushed(tiny_clip_folder, make_trainer, pushed, monkeypatch):
    model = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=56)
    model.config.adapters_only = True
    trainer = make_trainer(model, hub_model_id="user/bolts")
    monkeypatch.setattr(trainer, "init_hf_repo", lambda token=None, private=None: None)
    with pytest.raises(ValueError, match="adapters_only=False"):
        trainer.push_to_hub()
    assert not pushed
