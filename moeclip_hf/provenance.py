"""Which code made a file: versions of the packages, and the commit where this package runs from a checkout."""

import subprocess
from importlib import metadata
from pathlib import Path

from .version import __version__


PACKAGES = ("torch", "transformers", "peft", "accelerate")


def get_versions() -> dict[str, str]:
    """Looks up the versions of this package and of those that its numbers depend on.

    Returns:
        `dict[str, str]`: Version by package; a package that is not installed is left out.
    """
    versions = {"moeclip_hf": __version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def get_commit() -> str | None:
    """Finds the commit of the checkout that this package runs from.

    Returns:
        `str` or `None`: The commit's hash, with `-dirty` behind it where tracked files differ from it; None for an
        installed package and without git.
    """
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    # The folders are named, since variables of the environment may point git at another repository.
    git = ["git", "--no-optional-locks", f"--git-dir={checkout / '.git'}", f"--work-tree={checkout}"]
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*git, *describe], capture_output=True, text=True, cwd=checkout)
    except FileNotFoundError:  # there is no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None
