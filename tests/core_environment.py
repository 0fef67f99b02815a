"""An environment with the core requirements of the package and nothing else, made of what is installed here."""

import configparser
import importlib.metadata
import os
import subprocess
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


ROOT = Path(__file__).parents[1]


def declared():
    """Requirements of setup.cfg: the core's under the key "", each extra's under its name."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    groups = {"": parser["options"]["install_requires"], **parser["options.extras_require"]}
    return {name: [Requirement(line) for line in text.split("\n") if line.strip()] for name, text in groups.items()}


def closure(requirements, extras=("",)):
    """Names of the distributions that the requirements name, directly or not, on this machine."""
    seen = set()
    pending = [(Requirement(text), tuple(extras)) for text in requirements]
    while pending:
        requirement, extras = pending.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if not applies or name == "moeclip-hf" or (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        pending += [(Requirement(text), ("", *requirement.extras)) for text in importlib.metadata.requires(name) or []]
    return {name for name, *_ in seen}


def make_environment(folder, requirements):
    """Makes an environment with the requirements and what they require; returns its interpreter."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site_packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    for name in closure(requirements):
        _expose(importlib.metadata.distribution(name), site_packages)
    return python


def run(*command, cwd, **environment):
    """Runs a command that must succeed, without this process' import path, and returns its stdout."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=inherited | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _expose(distribution, site_packages):
    """Links a distribution's top-level files and folders into another environment."""
    for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
        if not (site_packages / top).exists():
            (site_packages / top).symlink_to(Path(distribution.locate_file(top)).resolve())
