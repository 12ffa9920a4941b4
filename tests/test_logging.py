"""The package logs under its own name; only commands add a handler."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from deepfill_jax import errors

FILES = sorted((Path(__file__).parents[1] / "deepfill_jax").rglob("*.py"))
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "basicConfig"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_file_logs_by_another_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "absl" or "logging" not in [x.name for x in node.names]
        # `logging.warning` logs to the root logger, and adds a handler to it.
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "logging" or node.attr not in LEVELS


def test_the_library_adds_no_handler():
    code = """
import logging
from deepfill_jax import Inpainter, masks
logging.getLogger("deepfill_jax.masks").warning("seen once")
assert not logging.root.handlers and not logging.getLogger("deepfill_jax").handlers
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stderr == "seen once\n"


def test_commands_show_the_log_on_stderr(capsys):
    logger = logging.getLogger("deepfill_jax.somewhere")
    errors.run_command(lambda: logger.warning("%d files are unreadable.", 2))
    assert capsys.readouterr() == ("", "warning: 2 files are unreadable.\n")
    errors.run_command(lambda: logger.info("checking %d image files.", 2))
    assert capsys.readouterr() == ("", "checking 2 image files.\n")
    with pytest.raises(SystemExit):
        errors.run_command(lambda: (_ for _ in ()).throw(errors.UsageError("wrong")))
    assert capsys.readouterr().err == "error: wrong\n"
    package = logging.getLogger("deepfill_jax")
    assert not package.handlers and package.propagate and package.level == logging.NOTSET
