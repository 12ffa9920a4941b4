"""Test setup: eight virtual devices, so that sharding is always tested, and fast compilation."""

import gc
import os
from pathlib import Path

import jax
import pytest

# Helpers with assertions, and plugins that test files import.
pytest.register_assert_rewrite("app_fixtures", "data_streams", "published_files", "training")

# JAX reads XLA_FLAGS when it first uses the CPU, and so do the processes that tests start. These
# flags cut the compilation time of a training step, which runs only a few times, to a third; each
# worker compiles on a single core. XLA aborts a process that passes an unknown flag.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__[:2] == (0, 10):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
jax.config.update("jax_num_cpu_devices", 8)
# Tests, workers, test runs and the processes that tests start share this cache, because the suite
# would otherwise spend most of its time on compilation.
CACHE, LEAST_SECONDS = str(Path(__file__).parents[1] / ".pytest_cache/jax"), 0.3
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(LEAST_SECONDS)
# Models that the user has downloaded must not change what tests see.
os.environ["XDG_CACHE_HOME"] = str(Path(CACHE).with_name("user_cache"))
# Begun first, so that the workers end at the same time; a file's tests run in one worker.
LONGEST_FILES = (
    *("test_train", "test_steps", "test_export", "test_benchmarks", "test_compiled_programs"),
    *("test_main", "test_models", "test_checkpoint_faults", "test_attention", "test_doctor"),
    *("test_worker", "test_pipeline_benchmark", "test_checkpoint", "test_streams", "test_convert"),
    *("test_client_types", "test_inpainter", "test_trained", "test_trainers", "test_quality"),
    *("test_train_bundled", "test_app_command", "test_tensorflow1", "test_torch_files"),
)


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish():
    """Hides imported objects from the garbage collector, which took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
