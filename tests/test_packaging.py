"""What is shipped: wheel and sdist, a run with the core requirements alone, declared imports, one set of versions."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from core_environment import ROOT, closure, declared, make_environment, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import moeclip_hf


PACKAGE = ROOT / "moeclip_hf"
CORE = {"torch", "transformers", "peft", "safetensors", "huggingface_hub", "Pillow", "numpy"}
# Distributions whose import name differs from their own.
IMPORT_NAMES = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
# torch's requirements where it is built for CUDA; which of them there are depends on the machine.
CUDA_RUNTIME = ("nvidia-", "cuda-", "triton")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Folder with the sdist, and with the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    leave = shutil.ignore_patterns(".*", "build", "dist", "outputs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=leave)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions):
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def core_python(wheel, metadata, tmp_path_factory):
    """Interpreter of a fresh environment: the wheel, the core requirements and what these require, nothing else."""
    folder = tmp_path_factory.mktemp("core")
    python = make_environment(folder, metadata.get_all("Requires-Dist"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    return python


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines if not line.startswith("#"))


# The wheel and the sdist


def test_wheel_metadata(metadata):
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert {requirement.name for requirement in requirements if requirement.marker is None} == CORE
    assert set(metadata.get_all("Provides-Extra")) == {"train", "eval", "demo", "dev"}
    assert metadata["Version"] == moeclip_hf.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License"] == "Apache-2.0"


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if not name.split("/")[0].endswith(".dist-info")} == tracked
    assert {"moeclip_hf/py.typed"} <= names


def test_sdist_is_complete(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "CHANGELOG.md",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
    ):
        assert name in names
    for folder in ("moeclip_hf", "tests", "examples", "hub_configs"):
        here = {
            str(file.relative_to(ROOT))
            for file in (ROOT / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        assert here <= names, sorted(here - names)


def test_packaged_model_runs_on_the_core_requirements(core_python, tmp_path):
    script = shutil.copy(Path(__file__).with_name("core_inference.py"), tmp_path)
    assert run(core_python, "-I", script, cwd=tmp_path, HF_HUB_OFFLINE="1").startswith("defects found on ")


def test_command_names_the_missing_extra(core_python, tmp_path):
    arguments = ["evaluate", "--model", "m", "--data", "d", "--output", "results.json"]
    done = subprocess.run([core_python.with_name("moeclip"), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("moeclip: error: ")
    assert "`datasets`" in line
    assert "pip install 'moeclip_hf[" in line


# Imports


def imported_packages(path):
    """Third-party packages that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"moeclip_hf"}


def import_names(requirements):
    return {IMPORT_NAMES.get(canonicalize_name(one.name), one.name.replace("-", "_")) for one in requirements}


def test_every_import_is_declared():
    groups = declared()
    extras = [one for name in ("train", "eval", "demo") for one in groups[name] if one.name != "moeclip_hf"]
    allowed = import_names(groups[""]) | import_names(extras)
    for path in PACKAGE.rglob("*.py"):
        undeclared = imported_packages(path) - allowed
        assert not undeclared, (
            f"{path.relative_to(ROOT)} imports {sorted(undeclared)}, which setup.cfg does not declare"
        )


def test_every_requirement_is_imported():
    groups = declared()
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    used = set().union(*(imported_packages(path) for path in files))
    for name in ("", "train", "eval", "demo"):
        own = [one for one in groups[name] if one.name != "moeclip_hf"]
        unused = import_names(own) - used - {"tensorboard"}  # the trainer's `report_to` imports it by name
        assert not unused, f"setup.cfg requires {sorted(unused)} in `{name or 'core'}`, but no file imports it"


def test_files_that_travel_with_the_weights_need_the_core_only():
    core = import_names(declared()[""])
    for path in PACKAGE.glob("*_moeclip.py"):
        imported = imported_packages(path)
        assert imported <= core, f"{path.name} imports {sorted(imported - core)}"


def modules_after(code):
    """Names of all modules that are loaded once the code has run in a fresh interpreter."""
    return set(run(sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)", cwd=ROOT).split())


def test_import_loads_model_files_only():
    code = "import moeclip_hf"
    own = {name for name in modules_after(code) if name.startswith("moeclip_hf.")}
    assert {"moeclip_hf.modeling_moeclip", "moeclip_hf.processing_moeclip"} <= own
    assert {name for name in own if not name.endswith("_moeclip")} <= {"moeclip_hf.version"}


@pytest.mark.parametrize(("name", "loads_models"), [("moeclip", False), ("moeclip.exe", False), ("moeclip.py", True)])
def test_the_console_command_alone_waits_with_the_models(tmp_path, name, loads_models):
    script = tmp_path / name
    script.write_text("import sys, moeclip_hf; print('moeclip_hf.modeling_moeclip' in sys.modules)")
    assert run(sys.executable, script, cwd=tmp_path, PYTHONPATH=str(ROOT)).strip() == str(loads_models)


# One set of versions


def test_constraints_pin_everything_that_is_installed():
    groups = declared()
    needed = closure([str(one) for group in groups.values() for one in group])
    missing = needed - {canonicalize_name(name) for name in pins()}
    missing = {name for name in missing if not name.startswith(CUDA_RUNTIME)}
    assert not missing, f"constraints.txt does not pin {sorted(missing)}"


def test_constraints_pin_nothing_else():
    groups = declared()
    needed = closure([str(one) for group in groups.values() for one in group])
    unneeded = {canonicalize_name(name) for name in pins()} - needed
    assert not unneeded, f"nothing requires {sorted(unneeded)}, which constraints.txt pins"


def test_constraints_satisfy_setup_cfg():
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    for requirement in (one for group in declared().values() for one in group if one.name != "moeclip_hf"):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"


def test_one_ruff():
    (requirement,) = (one for one in declared()["dev"] if one.name == "ruff")
    assert str(requirement.specifier) == f"=={pins()['ruff']}"
    assert f"rev: v{pins()['ruff']}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_one_version():
    assert f"\nversion: {moeclip_hf.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {moeclip_hf.__version__}" in (ROOT / "CHANGELOG.md").read_text()


# Make


def make_plan(environment, *targets):
    return run("make", "--dry-run", f"VENV={environment}", *targets, cwd=ROOT)


def test_make_installs_once(tmp_path):
    assert "pip install" in make_plan(tmp_path, "test")
    stamp, space_stamp = tmp_path / ".installed", tmp_path / "space" / ".installed"
    stamp.touch()
    assert "space/requirements.txt" in make_plan(tmp_path, "space")
    space_stamp.parent.mkdir()
    space_stamp.touch()
    for target in ("demo", "space", "test", "test-slow", "quality", "style"):
        plan = make_plan(tmp_path, target)
        assert "pip install" not in plan
        assert plan.strip()
    os.utime(stamp, (0, 0))
    assert "pip install" in make_plan(tmp_path, "demo")


def test_make_help_lists_every_target():
    text = run("make", "help", cwd=ROOT)
    for target in ("demo", "space", "test", "test-slow", "quality", "style"):
        assert f"make {target} " in text


def test_make_names_a_too_old_interpreter(tmp_path):
    done = subprocess.run(
        ["make", "test", f"VENV={tmp_path}", "PYTHON=/nowhere/python3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "/nowhere/python3 is missing or older than 3.11" in done.stderr
