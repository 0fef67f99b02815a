import re
import subprocess
from importlib import metadata

import moeclip_hf
from moeclip_hf import provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_versions_are_those_installed(monkeypatch):
    versions = provenance.get_versions()
    assert versions["moeclip_hf"] == moeclip_hf.__version__
    assert versions["torch"] == metadata.version("torch")
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no_such_package"))
    assert set(provenance.get_versions()) == {"moeclip_hf", "torch"}


def test_commit_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "package" / "provenance.py"))
    assert provenance.get_commit() is None  # no checkout
    git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "v1")
    commit = provenance.get_commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert commit == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert provenance.get_commit() == f"{commit}-dirty"


def test_no_git_on_the_machine(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "package" / "provenance.py"))
    assert provenance.get_commit() is None  # an empty folder is no repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.get_commit() is None
