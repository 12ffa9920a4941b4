"""Eight virtual devices, so that sharding is tested everywhere; compiling is kept short."""

import os
from pathlib import Path

import jax

# Read when JAX first meets the CPU, and by the processes that tests start. Half the time to compile
# a training step, which runs a few times only.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
jax.config.update("jax_num_cpu_devices", 8)
# Between tests, workers and runs: most of the suite's time would be spent on compiling.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache/jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
