"""The console command's frame: fast and complete help, one-line errors, exit codes."""

import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import moeclip_hf
from moeclip_hf import cli


@pytest.fixture
def fake_command(monkeypatch):
    """Offers `moeclip fake`, whose `run` does what the test assigns to `.body`."""
    module = types.ModuleType("moeclip_hf.cli.fake")
    module.body = lambda args: None

    def add_parser(subparsers):
        parser = subparsers.add_parser("fake", help="a fake")
        parser.add_argument("--data", required=True)
        parser.set_defaults(run=lambda args: module.body(args))

    module.add_parser = add_parser
    monkeypatch.setitem(sys.modules, "moeclip_hf.cli.fake", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", cli.Command("a fake", "train"))
    return module


def raising(error):
    def body(args):
        raise error

    return body


def error_lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in cli.COMMANDS), ["--version"]])
@pytest.mark.parametrize("as_script", [False, True])
def test_help_needs_no_heavy_import(tmp_path, arguments, as_script):
    (tmp_path / "moeclip").write_text("import sys\nfrom moeclip_hf.cli import main\nsys.exit(main())\n")
    command = [tmp_path / "moeclip"] if as_script else ["-m", "moeclip_hf.cli"]
    root = str(Path(moeclip_hf.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "moeclip_hf" in imported
    assert not {"torch", "transformers", "peft", "datasets", "numpy"} & imported


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, command in cli.COMMANDS.items():
        assert f"{name} {command.summary}" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_argument_is_explained(name):
    parser = cli.build_parser(name)
    (subparsers,) = (action for action in parser._actions if hasattr(action, "choices") and action.choices)
    command = subparsers.choices[name]
    assert command.description
    for action in command._actions:
        assert action.help, f"moeclip {name}: {action.option_strings or action.dest} has no help"


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"moeclip {moeclip_hf.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["--nonsense"], ["fake"], ["fake", "--data", "x", "--nonsense"]]
)
def test_wrong_usage_exits_with_2(fake_command, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: moeclip" in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_of_run(fake_command, returned, code):
    fake_command.body = lambda args: returned
    assert cli.main(["fake", "--data", "x"]) == code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("`--k` (5) must be at most 4."), "`--k` (5) must be at most 4."),
        (FileNotFoundError("my_data is not a folder: give one."), "my_data is not a folder: give one."),
        (PermissionError(13, "Permission denied", "results.json"), "results.json: Permission denied"),
        (OSError("\n  No   such model.\nSee https://example.org for more."), "No such model."),
        (
            ValueError("Validation error for field 'r':\n    TypeError: expected int"),
            "Validation error for field 'r': TypeError: expected int",
        ),
        (ValueError(), "ValueError"),
        (ImportError("a needs b >= 2.\nInstall it."), "a needs b >= 2."),
    ],
)
def test_user_errors_are_one_line(fake_command, error, line, capsys):
    fake_command.body = raising(error)
    assert cli.main(["fake", "--data", "x"]) == 1
    assert error_lines(capsys) == [f"moeclip: error: {line}"]


def test_missing_package_names_the_extra(fake_command, capsys):
    def body(args):
        import a_package_nobody_has.part  # noqa: F401 - that it fails is all it is for

    fake_command.body = body
    assert cli.main(["fake", "--data", "x"]) == 1
    (line,) = error_lines(capsys)
    assert "`a_package_nobody_has` is not installed" in line
    assert "'moeclip_hf[train]'" in line


@pytest.mark.parametrize("source", ["/nowhere/clip", "nobody/no-clip"])
def test_missing_model_names_its_argument(fake_command, source, capsys):
    def body(args):
        from transformers import AutoConfig

        args.clip = source
        AutoConfig.from_pretrained(source)

    fake_command.body = body
    assert cli.main(["fake", "--data", "x"]) == 1
    (line,) = error_lines(capsys)
    assert line.startswith(f"moeclip: error: `--clip` {source} is no folder on this machine")


def test_own_errors_do_not_blame_the_model(fake_command, capsys):
    def body(args):
        args.model = "nobody/no-clip"
        raise FileNotFoundError("`data` x does not exist: give a folder.")

    fake_command.body = body
    assert cli.main(["fake", "--data", "x"]) == 1
    assert error_lines(capsys) == ["moeclip: error: `data` x does not exist: give a folder."]


def test_damaged_files_are_user_errors(fake_command, tmp_path, capsys):
    from safetensors.torch import load_file

    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a safetensors file at all")
    fake_command.body = lambda args: load_file(path)
    assert cli.main(["fake", "--data", "x"]) == 1
    assert error_lines(capsys)[0].startswith("moeclip: error: ")


def test_mistakes_in_the_code_keep_their_traceback(fake_command):
    fake_command.body = raising(KeyError("a bug"))
    with pytest.raises(KeyError):
        cli.main(["fake", "--data", "x"])


def test_interrupted(fake_command, capsys):
    fake_command.body = raising(KeyboardInterrupt())
    assert cli.main(["fake", "--data", "x"]) == 130
    assert error_lines(capsys)[-1] == "moeclip: interrupted"


def test_package_log_is_shown_only_while_a_command_runs(fake_command, capsys):
    logger = logging.getLogger("moeclip_hf.somewhere")
    fake_command.body = lambda args: logger.info("12 images")
    assert cli.main(["fake", "--data", "x"]) == 0
    assert capsys.readouterr().err == "12 images\n"
    logger.info("unheard")
    assert capsys.readouterr().err == ""


def test_module_entry_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "moeclip_hf.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"moeclip {moeclip_hf.__version__}\n")
