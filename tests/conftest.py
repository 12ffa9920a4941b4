"""Eight virtual devices, so that sharding is tested everywhere; compiling is kept short."""

import gc
import os
from pathlib import Path

import jax

# Read when JAX first meets the CPU, and by the processes that tests start. A third of the time to
# compile a training step, which runs a few times only; each worker has but one core to compile on.
# XLA ends a process for a flag it has not.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__[:2] == (0, 10):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
jax.config.update("jax_num_cpu_devices", 8)
# Between tests, workers, runs and the processes that tests start: most of the suite's time would be
# spent on compiling.
CACHE, LEAST_SECONDS = str(Path(__file__).parents[1] / ".pytest_cache/jax"), 0.3
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(LEAST_SECONDS)


def pytest_collection_finish():
    """Spares the garbage collector what the imports have made: it took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
