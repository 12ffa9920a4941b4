"""The console command `deepfill`, and the flags of its commands."""

import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import deepfill_jax
from deepfill_jax import cli, flags
from deepfill_jax.errors import UsageError


def ended(capsys, main, *arguments):
    """Runs a command that argparse ends; returns exit code, output and error output."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code, *capsys.readouterr()


def test_help_lists_the_commands_and_imports_no_large_package(capsys):
    code, out, _ = ended(capsys, cli.main, "--help")
    assert code == 0
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    code = """
import sys
from deepfill_jax import cli
try:
    cli.main(["--help"])
except SystemExit:
    assert not {"jax", "numpy", "PIL", "rich", "tensorflow"} & set(sys.modules)
    print("all")
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
    assert ran.stdout.endswith(b"all\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_matches_that_of_its_module(name, capsys):
    module = importlib.import_module(cli.COMMANDS[name][0])
    assert ended(capsys, cli.main, name, "--help") == ended(capsys, module.main, "--help")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_shows_the_command_line(name, capsys):
    code, out, _ = ended(capsys, cli.main, name, "--help")
    assert code == 0 and out.startswith(f"usage: deepfill {name} ")


def test_version_is_printed(capsys):
    assert ended(capsys, cli.main, "--version") == (0, f"deepfill {deepfill_jax.__version__}\n", "")


OWN = {
    "train": {*flags.RUN, *flags.TRAINING, *flags.PROCESSES},
    "evaluate": {*flags.RUN, *flags.PROCESSES, *flags.EVALUATION},
    "doctor": {*flags.RUN},
    "main": {"mode", *flags.RUN, *flags.TRAINING, *flags.PROCESSES, *flags.EVALUATION},
}


@pytest.mark.parametrize("command", OWN)
def test_help_lists_exactly_the_flags_of_the_command(command, capsys):
    with pytest.raises(SystemExit) as end:
        flags.parse(command, ["--config=nothing", "--help"])
    options = capsys.readouterr().out.partition("\nrun:")
    assert end.value.code == 0
    listed = {line.split()[0] for line in "".join(options).splitlines() if line.startswith("  --")}
    assert listed == {f"--{name}" for name in OWN[command]}


def test_every_flag_is_in_the_help_of_a_command():
    ours = {flag.name for flag in flags.FLAGS.flags_by_module_dict()["deepfill_jax.flags"]}
    assert ours == OWN["main"]


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        ("train", ["--baseline=mean"], "deepfill train has no flag --baseline;"),
        ("doctor", ["--output=x"], "deepfill doctor has no flag --output;"),
        ("evaluate", ["--mode=train"], "deepfill evaluate has no flag --mode;"),
        ("evaluate", ["--start_over"], "deepfill evaluate has no flag --start_over;"),
        ("main", ["--mode=eval", "--start_over"], "--mode=eval has no flag --start_over;"),
        ("main", ["--mode=train", "--model=faces"], "--mode=train has no flag --model;"),
    ],
)
def test_flag_of_another_command_is_refused(command, arguments, message):
    with pytest.raises(UsageError, match=message):
        flags.parse(command, ["--config=smoke", *arguments])


def test_renamed_flag_suggests_the_new_one():
    with pytest.raises(UsageError, match="--results was renamed to --predictions"):
        flags.parse("evaluate", ["--config=smoke", "--results=x"])


@pytest.mark.parametrize("arguments", [["--config=smoke:official"], ["--config", "smoke:official"]])
def test_both_spellings_of_the_config_flag_take_a_name(arguments):
    assert flags.parse("train", arguments).model.architecture == "official"


@pytest.mark.parametrize("command", ["train", "evaluate", "doctor"])
def test_missing_extra_is_named(command):
    code = f"""
import sys
sys.modules["ml_collections"] = None
from deepfill_jax import cli
cli.main(["{command}", "--config=smoke", "--workdir=x"])
"""
    ran = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert ran.returncode == 2 and "pip install 'deepfill_jax[train]'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_arguments_are_passed_to_the_command(capsys):
    code, _, err = ended(capsys, cli.main, "convert", "--dtype", "int8", "here", "--output", "x")
    assert code == 2 and "argument --dtype: invalid choice: 'int8'" in err


def test_unknown_command_suggests_a_similar_one(capsys):
    code, _, err = ended(capsys, cli.main, "inpant", "--help")
    assert code == 2
    assert err.endswith(
        "error: argument COMMAND: there is no command inpant; did you mean inpaint?\n"
    )
    assert f"choose from {', '.join(cli.COMMANDS)}" in ended(capsys, cli.main, "zzz")[2]
    assert "required: COMMAND" in ended(capsys, cli.main)[2]


def test_console_script_is_declared():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == (
        "deepfill = deepfill_jax.cli:main"
    )
