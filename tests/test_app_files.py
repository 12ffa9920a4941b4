"""Tests of the temporary files of the web UI's server."""

import os
import subprocess
import sys
import time

import pytest

from deepfill_jax.app.folder import temporary_folder
from deepfill_jax.app.quota import Quota, QuotaError
from deepfill_jax.app.sessions import MAX_SESSIONS, UNCLAIMED_SECONDS, Sessions
from deepfill_jax.errors import UsageError


@pytest.fixture
def quota():
    return Quota(1000)


@pytest.fixture
def sessions(tmp_path, quota):
    """Returns sessions with a file that they share."""
    (tmp_path / "example").mkdir()
    (tmp_path / "example/chelsea.png").touch()
    sessions = Sessions(tmp_path, quota)
    sessions.keep_what_is_there()
    return sessions


def upload(folder, name, *, size=10, age=0):
    """Makes a file as gradio stores an upload."""
    path = folder / name / "photo.png"
    path.parent.mkdir()
    path.write_bytes(bytes(size))
    for x in (path, path.parent):
        os.utime(x, 2 * (time.time() - age,))
    return path


def files(folder):
    return {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    code = """
import os, sys
from deepfill_jax.app.folder import temporary_folder
with temporary_folder() as folder:
    (folder / "secret").mkdir()
    (folder / "secret/photo.png").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    killed, living = (process.stdout.readline().strip() for process in processes)
    (tmp_path / "deepfill_mine").mkdir()  # Has no lock: it is not a server's.
    processes[0].kill()
    processes[0].wait()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert not os.path.exists(killed) and os.path.exists(f"{living}/secret/photo.png")
        assert sorted(map(str, tmp_path.iterdir())) == sorted(
            [living, str(folder), str(tmp_path / "deepfill_mine")]
        )
    assert not folder.exists()
    processes[1].communicate()
    assert [x.name for x in tmp_path.iterdir()] == ["deepfill_mine"]


def test_least_recently_used_session_ends_beyond_the_maximum(tmp_path, quota):
    sessions = Sessions(tmp_path, quota)
    for number in range(MAX_SESSIONS + 3):
        assert sessions.of(f"{number}").folder.is_dir()
    assert len(list(tmp_path.iterdir())) == MAX_SESSIONS
    kept = sessions.of("4").folder
    for number in range(100, 100 + MAX_SESSIONS):
        assert kept.is_dir()
        sessions.of(f"{number}")
    assert not kept.exists()


def test_uploads_belong_to_their_session(tmp_path, sessions):
    older, newer = sessions.of("older"), sessions.of("newer")
    with newer.taking(upload(tmp_path, "a")) as taken:
        assert taken.parent == newer.folder
    with newer.borrowing(upload(tmp_path, "b")) as layer:
        assert layer.parent == newer.folder
    with older.taking(tmp_path / "example/chelsea.png"):  # An upload of the same content.
        pass
    assert not layer.exists() and not list(tmp_path.glob("[ab]"))
    upload(tmp_path, "b")  # The editor uploads its layer more than once.
    with pytest.raises(UsageError, match="The uploaded file has expired; upload it again"):
        with newer.taking(tmp_path / "c/photo.png"):
            pass
    sessions.end("newer")  # The older page is still open.
    assert files(tmp_path) - files(older.folder) - {"example/chelsea.png"} == {
        str(x.relative_to(tmp_path)) for x in older.folder.iterdir()
    }
    sessions.end("older")
    assert files(tmp_path) == {"example/chelsea.png"}


def test_old_uploads_without_a_session_are_deleted(tmp_path, sessions):
    with sessions.of("me").taking(upload(tmp_path, "mine")) as mine:
        pass
    for path in (mine, mine.parent, tmp_path / "example"):
        os.utime(path, (0, 0))
    upload(tmp_path, "old", age=UNCLAIMED_SECONDS + 5)
    upload(tmp_path, "new", age=UNCLAIMED_SECONDS - 5)
    (tmp_path / "tmp1234").touch()  # gradio leaves these files behind.
    os.utime(tmp_path / "tmp1234", (0, 0))
    sessions.sweep()
    kept = {"example/chelsea.png", "new/photo.png", str(mine.relative_to(tmp_path))}
    assert files(tmp_path) == kept and not (tmp_path / "old").exists()
    sessions.end("me")  # No page is open any more.
    sessions.sweep()
    assert files(tmp_path) == {"example/chelsea.png"}


def test_unused_uploads_are_discarded(tmp_path, sessions):
    session = sessions.of("me")
    with session.taking(upload(tmp_path, "mine")) as mine:
        pass
    before = files(tmp_path)
    for path in (upload(tmp_path, "composite"), mine, tmp_path / "example/chelsea.png", __file__):
        session.discard(path)
    assert files(tmp_path) == before and not (tmp_path / "composite").exists()


def test_event_loop_does_not_walk_the_folder(tmp_path, sessions, monkeypatch):
    """Whatever a session does on the event loop, it looks at its own files only."""
    with sessions.of("me").taking(upload(tmp_path, "mine")):
        pass
    looked, scan, own = [], os.scandir, sessions.of("me").folder

    def scandir(path):
        looked.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail(f"walks {path}"))
    sessions.of("you").discard(tmp_path / "example/chelsea.png")
    sessions.end("me")
    sessions.end("you")
    monkeypatch.undo()
    assert not own.exists() and str(tmp_path) not in map(str, looked)


def test_quota_counts_requests_and_stored_files(tmp_path, sessions, quota):
    with sessions.of("me").taking(upload(tmp_path, "mine", size=300)):
        pass
    upload(tmp_path, "new", size=200)
    sessions.sweep()
    message = r"no room for more files: their limit is 1e-06 GB. Try again later, or start"
    quota.hold(400)
    with pytest.raises(QuotaError, match=message):
        quota.hold(101)
    quota.hold(100)
    with pytest.raises(QuotaError):
        quota.check()
    quota.release(100)
    quota.release(400, is_stored=True)
    with pytest.raises(QuotaError):
        quota.hold(101)
    sessions.end("me")
    sessions.sweep()
    quota.hold(800)
    quota.set_stored(300)
    quota.hold(0)  # Requests without a body are always answered.
