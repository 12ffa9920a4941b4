"""Compilation cache, memory limit of the attention, and compiler options."""

from pathlib import Path

import jax
import pytest

from deepfill_jax import compile_cache, compiler, memory

KEYS = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(autouse=True)
def no_cache():
    before = {key: getattr(jax.config, key) for key in KEYS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for key, value in before.items():
        jax.config.update(key, value)


def test_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    compile_cache.cache_on_disk()
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path / 'xdg' / 'deepfill_jax' / 'jax'}"
    assert Path(jax.config.jax_compilation_cache_dir).is_dir()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", f"{tmp_path}")
    compile_cache.cache_on_disk()
    expected = tmp_path / ".cache" / "deepfill_jax" / "jax"
    assert jax.config.jax_compilation_cache_dir == f"{expected}"


def test_cache_folder_set_by_the_user_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    jax.config.update("jax_compilation_cache_dir", f"{tmp_path / 'own'}")
    compile_cache.cache_on_disk()
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path / 'own'}"
    assert list(tmp_path.iterdir()) == []


def test_cache_is_disabled_without_a_writable_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'file'}")
    compile_cache.cache_on_disk()
    assert jax.config.jax_compilation_cache_dir is None


def test_attention_memory_is_an_eighth_of_a_gpu_and_at_least_64_mib(monkeypatch):
    assert memory.attention_memory() == 2**26
    stats = {"bytes_limit": 64 * 2**30}
    device = type("Gpu", (), {"memory_stats": lambda self: stats})()
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert memory.attention_memory() == 8 * 2**30
    stats["bytes_limit"] = 2**28
    assert memory.attention_memory() == 2**26


def test_deterministic_option_is_set_on_gpus_only(monkeypatch):
    assert compiler.options(training=True, deterministic=True) == compiler.options(training=True)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not compiler.options(training=True)
    (option,) = compiler.options(training=True, deterministic=True)
    monkeypatch.undo()
    # XLA refuses unknown option names on every device, so the CPU can check the name.
    assert jax.jit(lambda x: x, compiler_options={option: True})(1) == 1
