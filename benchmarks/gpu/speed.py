"""Times training and inference of the published network in float32, TF32 and bfloat16.

    python benchmarks/gpu/speed.py OUT

Appends JSON lines to OUT/speed.jsonl: seconds to compile, apart; median and spread of the rounds;
what XLA reserves for the program, and the device's peak so far; operations by XLA's count.
"""

import sys
import time

import jax
import jax.numpy as jnp
import programs

from deepfill_jax import compiler, sharding, steps


def compiled(lowered) -> tuple:
    """The program, and what is known of it before it runs."""
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needed += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    facts = {
        "compile_s": round(seconds, 2),
        "program_gb": round(needed / 1e9, 6),
        "tflop": round(lowered.cost_analysis()["flops"] / 1e12, 6),
    }
    return program, facts


def measure(program: str, shape: programs.Shape, networks, state, mesh, *, rounds: int) -> dict:
    """Compiles and times one program."""
    batch = programs.put(shape, mesh)
    if program == "training":
        run, facts = compiled(programs.make_step(networks, mesh).lower(state, batch))
        carried = [jax.tree.map(jnp.copy, state)]  # A step donates the state that it is given.

        def call():
            carried[0], scalars = run(carried[0], batch)
            return scalars
    else:
        params = state.generator.params
        generator = networks[0].clone(attention_memory=compiler.attention_memory())
        infer = steps.make_inference_step(generator, mesh)
        run, facts = compiled(infer.lower(params, batch))

        def call():
            return run(params, batch)

    times = programs.time_calls(call, jax.block_until_ready, batch=shape.batch, rounds=rounds)
    stats = jax.devices()[0].memory_stats() or {}  # A CPU has none.
    peak = stats.get("peak_bytes_in_use")
    return facts | times | {"peak_so_far_gb": peak and round(peak / 1e9, 3)}


def main() -> None:
    options = programs.shape_arguments(__doc__).parse_args()
    report = programs.Report(options.out / "speed.jsonl")
    mesh, failed = sharding.make_mesh(), False
    state = programs.make_state(options.width, mesh)
    shapes = {"training": options.training, "inference": options.inference}
    for precision, program, shape in programs.each(shapes, options.precisions):
        dtype, rounding = programs.PRECISIONS[precision]
        networks = programs.make_networks(options.width, dtype)
        result = {"program": program, "precision": precision, **shape._asdict()}
        try:
            with jax.default_matmul_precision(rounding):
                result |= measure(program, shape, networks, state, mesh, rounds=options.rounds)
        except jax.errors.JaxRuntimeError as error:  # Out of memory; the others may fit.
            result["error"] = str(error).splitlines()[0]
            failed = True
        report(**result)
    sys.exit(failed)


if __name__ == "__main__":
    main()
