"""Atomic writes: files appear complete or not at all, and no temporary file remains."""

import os
import re
from pathlib import Path

import pytest

from deepfill_jax.atomic_write import atomic_write, unfinished_path
from deepfill_jax.errors import UsageError

PACKAGE = Path(__file__).parents[1] / "deepfill_jax"


def test_readers_see_the_old_file_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as unfinished:
        unfinished.write_text("old")
        assert not path.exists()
    with atomic_write(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "Disk full")])
def test_failed_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises((KeyboardInterrupt, RuntimeError, UsageError)):
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_file_name_of_maximum_length_can_be_written(tmp_path):
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    with atomic_write(path) as unfinished:
        unfinished.write_text("x")
    assert path.read_text() == "x"
    assert unfinished_path(path) != unfinished_path(path.with_name("m"))


def test_missing_folders_are_not_created_without_make_parents(tmp_path):
    with pytest.raises(UsageError, match="absent/a cannot be written: No such file or directory"):
        with atomic_write(tmp_path / "absent" / "a", make_parents=False) as unfinished:
            unfinished.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_only_by_atomic_write():
    replaces = re.compile(r"os\.(replace|rename)\(|\.tmp\b|unfinished\.replace\(")
    found = {path.name for path in PACKAGE.rglob("*.py") if replaces.search(path.read_text())}
    # A download that was interrupted stays, to be resumed. Several processes may convert a download
    # at once, so each writes a file of its own.
    assert found == {"atomic_write.py", "cache.py", "sources.py"}
