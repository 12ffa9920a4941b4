"""Restart of a command with huge pages."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from deepfill_jax.huge_pages import restart_with_huge_pages
restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
@pytest.mark.parametrize(
    "before, after",
    [
        ({}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
    ],
)
def test_command_restarts_once_with_the_same_arguments(before, after):
    environment = {name: x for name, x in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", CODE, "--a=b c", "d"]
    run = subprocess.run(
        command, env={**environment, **before}, capture_output=True, text=True, timeout=60
    )
    assert run.stdout == f"{after} ['--a=b c', 'd']\n", run.stderr
