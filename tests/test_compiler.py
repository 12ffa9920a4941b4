"""Memory limit of the attention, and compiler options."""

import jax

from deepfill_jax import compiler, memory


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
