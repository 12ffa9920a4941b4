"""Listing and checking of image files: left-out files, and the second start."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest
from PIL import Image

from deepfill_jax import distributed, masks
from deepfill_jax.data import file_checks, sources
from deepfill_jax.data.file_checks import State
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import listing, rgb


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deepfill_jax" / "checked_images"


@pytest.fixture
def checked(monkeypatch):
    """The names of the files that are decoded."""
    names, check = [], rgb.check
    monkeypatch.setattr(
        rgb, "check", lambda path: (names.append(os.path.basename(path)), check(path))
    )
    return names


@pytest.fixture
def folder(tmp_path):
    """Three images, a damaged one and a transparent one."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos/damaged.png").write_text("not an image")
    write_image(tmp_path / "photos/transparent.png", "RGBA")
    return tmp_path / "photos"


def write_image(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (8, 8)).save(path)


def open_folder(folder):
    return sources.open_source(f"folder:{folder}")


# Tests of the listing.


def test_hidden_and_system_folders_are_left_out_and_counted(folder, caplog):
    caplog.set_level("INFO")
    hidden = [".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", "sub/.thumbs/deep"]
    for name in hidden:
        write_image(folder / name / "a.png")
    write_image(folder / "sub/d.png")
    write_image(folder / "._a.png")
    paths = open_folder(folder).paths
    assert [os.path.relpath(path, folder) for path in paths] == [
        "a.png",
        "b.png",
        "c.png",
        "sub/d.png",
    ]
    assert "left out 5 hidden or system folders" in caplog.text and "1 hidden files" in caplog.text
    assert str(folder / "@eaDir") in caplog.text


def test_hidden_root_is_searched(tmp_path):
    write_image(tmp_path / ".data/a.png")
    assert len(open_folder(tmp_path / ".data")) == 1


def test_loops_of_links_end_and_other_links_are_followed(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    write_image(tmp_path / "other/d.png")
    (folder / "sub").mkdir()
    (folder / "sub/up").symlink_to(folder)
    (folder / "sub/other").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(folder / "sub")
    (folder / "self").symlink_to("self")
    paths = open_folder(folder).paths
    assert [os.path.relpath(x, folder) for x in paths] == [
        "a.png",
        "b.png",
        "c.png",
        "sub/other/d.png",
    ]
    assert "2 links to a folder that contains them" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads any folder")
def test_folder_without_permission_is_refused(folder):
    (folder / "secret").mkdir(mode=0)
    with pytest.raises(UsageError, match="secret cannot be read .*; make it readable"):
        open_folder(folder)


def test_folder_that_cannot_be_read_is_refused(folder, monkeypatch):
    def scandir(path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(listing.os, "scandir", scandir)
    with pytest.raises(UsageError, match="photos cannot be read .Stale file handle"):
        open_folder(folder)


def test_masks_of_hidden_folders_are_not_drawn(tmp_path):
    mask = Image.new("L", (256, 256))
    mask.paste(255, (10, 10, 50, 50))
    for name in ("a.png", ".ipynb_checkpoints/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        mask.save(tmp_path / name)
    draw = masks._folder_sampler(str(tmp_path))
    assert draw.args[1] == [tmp_path / "a.png"]


# Tests of the checks.


def test_second_start_decodes_no_file(folder, checked, cache, caplog):
    first = open_folder(folder)
    assert sorted(checked) == ["a.png", "b.png", "c.png", "damaged.png", "transparent.png"]
    assert len(list(cache.iterdir())) == 1
    checked.clear()
    caplog.clear()
    second = open_folder(folder)
    assert not checked
    assert second.paths == first.paths and second.left_out == first.left_out
    assert "damaged.png" in caplog.text and "transparent pixels" in caplog.text


def test_new_and_changed_files_are_checked(folder, checked):
    open_folder(folder)
    write_image(folder / "new.png")
    os.utime(folder / "b.png", ns=(1, 1))
    write_image(folder / "damaged.png")
    checked.clear()
    assert len(open_folder(folder)) == 5
    assert sorted(checked) == ["b.png", "damaged.png", "new.png"]


def test_input_errors_are_not_remembered(folder, checked, monkeypatch):
    check = rgb.check

    def stale(path):
        try:
            raise OSError(116, "Stale file handle")
        except OSError as error:
            raise rgb.UnreadableImageError("it cannot be read") from error

    monkeypatch.setattr(rgb, "check", lambda path: stale(path) if "b.png" in path else check(path))
    assert len(open_folder(folder)) == 2
    monkeypatch.setattr(rgb, "check", check)
    checked.clear()
    assert len(open_folder(folder)) == 3 and checked == ["b.png"]


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_damaged_record_is_replaced(folder, checked, cache, content):
    open_folder(folder)
    (record,) = cache.iterdir()
    whole = record.read_bytes()
    record.write_bytes(whole[:-5] if content is None else content)
    checked.clear()
    assert len(open_folder(folder)) == 3 and len(checked) == 5
    assert record.read_bytes() == whole


def test_unwritable_cache_does_not_stop_the_start(folder, cache, caplog):
    caplog.set_level("INFO")
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in place of the folder")
    assert len(open_folder(folder)) == 3
    assert "The next start will read all images again" in caplog.text


def test_interrupted_check_keeps_its_progress(folder, checked, monkeypatch):
    monkeypatch.setattr(file_checks, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(file_checks, "_FILES_PER_TASK", 1)
    monkeypatch.setattr(file_checks, "_CHECK_THREADS", 1)
    check = rgb.check

    def stop(path):
        if "damaged" in path:
            raise KeyboardInterrupt
        check(path)

    monkeypatch.setattr(rgb, "check", stop)
    with pytest.raises(KeyboardInterrupt):
        open_folder(folder)
    monkeypatch.setattr(rgb, "check", check)
    checked.clear()
    assert len(open_folder(folder)) == 3 and set(checked) <= {"damaged.png", "transparent.png"}


def test_list_and_folder_have_records_of_their_own(folder, tmp_path, checked, cache):
    (folder / "list.txt").write_text("a.png\nc.png")
    open_folder(folder)
    assert len(sources.open_source(f"flist:{folder}/list.txt")) == 2
    assert len(list(cache.iterdir())) == 2
    checked.clear()
    open_folder(folder)
    assert not checked


# Tests of several processes.


def test_other_processes_read_no_file(folder, checked, monkeypatch):
    states = [State.USABLE, State.USABLE, State.DAMAGED, State.DAMAGED, State.TRANSPARENT]
    monkeypatch.setattr(distributed, "from_process_0", lambda compute: bytes(states))
    source = open_folder(folder)
    assert [os.path.basename(path) for path in source.paths] == ["a.png", "b.png"]
    assert not checked


PROCESS = """
    import sys, time
    import jax
    from deepfill_jax import distributed
    from deepfill_jax.errors import UsageError

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    port, index = sys.argv[1], int(sys.argv[2])
    distributed.join(f"127.0.0.1:{port}", 2, index)
    distributed.POLL_SECONDS = 0.1

    def compute():
        time.sleep(0.5)
        return b"from %d" % index

    def fail():
        raise UsageError("it is damaged")

    print(distributed.from_process_0(compute))
    try:
        distributed.from_process_0(fail)
    except UsageError as error:
        print(error)
"""


def test_result_of_process_0_reaches_the_others():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(port)]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    processes = [
        subprocess.Popen([*command, index], env=environment, stdout=subprocess.PIPE, text=True)
        for index in "01"
    ]
    for process in processes:
        printed = process.communicate(timeout=120)[0]
        assert printed.splitlines()[-2:] == ["b'from 0'", "it is damaged"]
