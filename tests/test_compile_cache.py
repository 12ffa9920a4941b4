"""The compilation cache: where it is, who enables it, and what damaged entries do."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from jax.experimental.compilation_cache import compilation_cache
from made import make_model

from deepfill_jax import compile_cache, distributed, flags, weights
from deepfill_jax.doctor import examination
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import command as evaluate
from deepfill_jax.export import __main__ as export
from deepfill_jax.inpaint import __main__ as inpaint
from deepfill_jax.inpaint import arguments, work
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.train import command as train

KEYS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def no_cache():
    before = {key: getattr(jax.config, key) for key in KEYS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for key, value in before.items():
        jax.config.update(key, value)
    compilation_cache.reset_cache()


def compile_anew():
    """Compiles a small program without the programs that this process holds in memory."""
    jax.clear_caches()
    return float(jax.jit(lambda x: jax.numpy.tanh(x) + 1)(0.0))


def test_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    compile_cache.enable()
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path / 'xdg' / 'deepfill_jax' / 'jax'}"
    assert Path(jax.config.jax_compilation_cache_dir).is_dir()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", f"{tmp_path}")
    compile_cache.enable()
    expected = tmp_path / ".cache" / "deepfill_jax" / "jax"
    assert jax.config.jax_compilation_cache_dir == f"{expected}"


def test_cache_folder_set_by_the_user_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    jax.config.update("jax_compilation_cache_dir", f"{tmp_path / 'own'}")
    compile_cache.enable()
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path / 'own'}"
    assert list(tmp_path.iterdir()) == []


def test_cache_is_disabled_without_a_writable_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'file'}")
    compile_cache.enable()
    assert jax.config.jax_compilation_cache_dir is None
    with pytest.raises(UsageError, match="file/own for compiled programs is not writable"):
        compile_cache.enable(tmp_path / "file" / "own")


def test_the_user_can_disable_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    jax.config.update("jax_enable_compilation_cache", False)
    compile_cache.enable()
    compile_cache.enable(tmp_path / "own")
    assert jax.config.jax_compilation_cache_dir is None
    assert list(tmp_path.iterdir()) == []


def test_cache_is_disabled_if_processes_do_not_share_its_folder(tmp_path, monkeypatch):
    """Otherwise some GPUs wait for the others to compile a program that these have read."""
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert distributed.is_shared(tmp_path) and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(jax, "process_index", lambda: 1)  # Process 0 does not write here.
    assert not distributed.is_shared(tmp_path)
    compile_cache.enable()
    assert jax.config.jax_compilation_cache_dir is None


class EnabledError(Exception):
    """The cache was enabled."""


def start_inpaint(folder):
    words = ["--model=scenes", "--images=a", "--masks=b", "--output=c"]
    inpaint._filler(arguments.parse(words))


def start_export(folder):
    export.main(["scenes", "--output", f"{folder / 'a.onnx'}"])


COMMANDS = {
    "train": lambda folder: train.run(None, f"{folder}"),
    "evaluate": lambda folder: evaluate.run(None, []),
    "doctor": lambda folder: examination.run(None, folder),
    "inpaint": start_inpaint,
    "export": start_export,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_enable_the_cache(tmp_path, monkeypatch, command):
    def enable():
        raise EnabledError

    monkeypatch.setattr(compile_cache, "enable", enable)
    monkeypatch.setattr(flags, "joined_processes", lambda config: contextlib.nullcontext())
    with flagsaver.flagsaver(), pytest.raises(EnabledError):
        COMMANDS[command](tmp_path)


def test_damaged_entries_are_compiled_again(tmp_path):
    compile_anew()  # JAX takes the folder also if it has compiled before.
    compile_cache.enable(tmp_path)
    assert compile_anew() == 1
    entries = list(tmp_path.glob("*-cache"))
    assert entries
    contents = [path.read_bytes() for path in entries]
    for damage in (lambda x: b"", lambda x: x[: len(x) // 2], lambda x: os.urandom(len(x))):
        for path, content in zip(entries, contents, strict=True):
            path.write_bytes(damage(content))
        with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"):
            assert compile_anew() == 1


def test_several_processes_use_the_folder_at_once(tmp_path):
    code = f"""
from deepfill_jax import compile_cache
compile_cache.enable({f"{tmp_path}"!r})
import jax
for i in range(20):
    assert jax.jit(lambda x: x + i)(0) == i
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert list(tmp_path.glob("*-cache"))


def test_inpainter_leaves_the_cache_to_the_program(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    path = tmp_path / "model.safetensors"
    weights.save(path, make_model("official"))
    Inpainter.load(path)
    assert jax.config.jax_compilation_cache_dir is None
    Inpainter.load(path, cache=tmp_path / "own")
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path / 'own'}"
    jax.config.update("jax_compilation_cache_dir", None)
    Inpainter.load(path, cache=True)
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path / 'xdg' / 'deepfill_jax' / 'jax'}"


def test_images_of_a_size_that_was_warmed_up_compile_nothing(caplog, monkeypatch):
    """One that is filled in one window; the windows of a larger image; a guided network."""
    monkeypatch.setattr(work, "BATCH_PIXELS", 2 * 32**2)
    caplog.set_level("INFO", "deepfill_jax")
    inpainter = Inpainter(make_model("official", guided=True), working_size=32)
    inpainter.warm_up([(24, 40), (72, 90)])
    sizes = "40x24", "32x32", "2 windows of 32x32"
    assert caplog.messages == [f"Compiling for {size}, once per size." for size in sizes]
    caplog.clear()
    for height, width in ((24, 40), (72, 90)):
        mask = np.zeros((height, width), np.uint8)
        mask[4:8, 4:8] = mask[-8:-4, -8:-4] = 255
        inpainter(np.full((height, width, 3), 7, np.uint8), mask)
    assert caplog.messages == []
    with pytest.raises(UsageError, match="at least one pixel, not 8x0"):
        inpainter.warm_up([(0, 8)])
    with pytest.raises(UsageError, match="strategy='all' must be one of"):
        inpainter.warm_up([(8, 8)], strategy="all")
