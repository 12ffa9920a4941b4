"""Eight virtual devices, so that sharding is tested everywhere; compiling is kept short."""

import os
from pathlib import Path

import jax

# Read when JAX first meets the CPU, and by the processes that tests start. A third of the time to
# compile a training step, which runs a few times only. XLA ends a process for a flag it has not.
FLAGS = ["--xla_backend_optimization_level=0"]
if jax.__version_info__[:2] == (0, 10):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
jax.config.update("jax_num_cpu_devices", 8)
# Between tests, workers and runs: most of the suite's time would be spent on compiling.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache/jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
