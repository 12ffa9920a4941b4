"""The console command."""

import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from deepfill_jax import cli


def ended(capsys, main, *arguments):
    """Exit code and output of a command that argparse ends."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code, *capsys.readouterr()


def test_help_names_the_commands_and_imports_nothing(capsys):
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
def test_help_of_a_command_is_its_modules(name, capsys):
    module = importlib.import_module(cli.COMMANDS[name][0])
    assert ended(capsys, cli.main, name, "--help") == ended(capsys, module.main, "--help")


def test_arguments_go_to_the_command(capsys):
    code, _, err = ended(capsys, cli.main, "convert", "--dtype", "int8", "here", "--output", "x")
    assert code == 2 and "argument --dtype: invalid choice: 'int8'" in err


def test_unknown_command(capsys):
    code, _, err = ended(capsys, cli.main, "inpant", "--help")
    assert code == 2
    assert err.endswith(
        "error: argument COMMAND: no command is called inpant; did you mean inpaint?\n"
    )
    assert f"there are {', '.join(cli.COMMANDS)}" in ended(capsys, cli.main, "zzz")[2]
    assert "required: COMMAND" in ended(capsys, cli.main)[2]


def test_it_is_installed():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == (
        "deepfill = deepfill_jax.cli:main"
    )
