"""Memory limit of the attention, compiler options, and forms of computations by device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from training import make_config

from deepfill_jax import compiler, memory, sharding
from deepfill_jax.train import build


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


def trace_training_step(**changes):
    config = make_config("images", **changes)
    mesh = sharding.make_mesh(jax.devices()[:1])
    shape = config.batch_size, config.image_size, config.image_size
    batch = {
        name: jax.ShapeDtypeStruct((*shape, channels), jnp.uint8)
        for name, channels in (("image", 3), ("mask", 1))
    }
    return build.train_step(config, mesh).trace(build.abstract_state(config, mesh), batch)


def lower(traced, platform):
    return traced.lower(lowering_platforms=(platform,)).as_text()


def kernel_sides(program):
    """Returns the heights and widths of the kernels of convolutions that are not gradients."""
    forward = r"stablehlo.convolution.*x\[0, 1, i, o\].*, tensor<(\d+)x(\d+)x\d+x\d+xf32>\) ->"
    return {tuple(map(int, sides)) for sides in re.findall(forward, program)}


def test_training_step_for_gpus_has_no_algorithm_for_cpus():
    traced = trace_training_step()
    # Kernels of one row, and of 2x2 taps for maps before they are upsampled.
    assert kernel_sides(lower(traced, "cpu")) > {(1, 3), (2, 2)}
    assert kernel_sides(lower(traced, "cuda")) == {(3, 3), (5, 5)}


def test_parts_of_a_batch_are_a_loop_except_on_cpus():
    traced = trace_training_step(grad_accum_steps=4)
    assert "stablehlo.while" in lower(traced, "cuda")
    assert "stablehlo.while" not in lower(traced, "cpu")


@pytest.mark.parametrize("platforms", [("cpu",), ("cpu", "cuda")])
def test_form_is_chosen_by_the_platform_of_the_program(platforms):
    double = compiler.by_device(cpu=lambda x: x + x, default=lambda x: 2 * x)
    exported = export.export(jax.jit(double), platforms=platforms)(jnp.float32(3))
    assert exported.call(jnp.float32(3)) == 6
    text = exported.mlir_module()
    assert "stablehlo.add" in text and ("stablehlo.multiply" in text) == ("cuda" in platforms)
    assert double(3) == jax.jit(double)(3) == 6


def test_scan_matches_a_loop():
    def body(total, x):
        return total + x, total * x

    inputs = np.arange(4.0, dtype=np.float32)
    total, products = compiler.scan(body, np.float32(1), inputs)
    assert total == 7
    np.testing.assert_array_equal(products, [0, 1, 4, 12])


@pytest.mark.parametrize("form, operation", [("cpu", "add"), ("default", "multiply")])
def test_one_form_can_be_used_on_all_devices(form, operation):
    with compiler.use_form(form):
        double = jax.jit(compiler.by_device(cpu=lambda x: x + x, default=lambda x: 2 * x))
    for platform in ("cpu", "cuda"):
        program = lower(double.trace(jnp.float32(3)), platform)
        assert re.findall(r"stablehlo\.(add|multiply)", program) == [operation]
