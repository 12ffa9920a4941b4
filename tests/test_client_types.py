"""What a type checker says of a program that uses the package."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_client_passes_strict_type_checks(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = "-m mypy --strict --follow-imports=silent --cache-dir".split()
    client = ROOT / "tests/client_types.py"
    checked = subprocess.run(
        [sys.executable, *command, str(tmp_path), str(client)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "deepfill_jax/py.typed").is_file()
    assert "deepfill_jax = py.typed" in (ROOT / "setup.cfg").read_text()
