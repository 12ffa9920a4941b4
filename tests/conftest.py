"""Eight virtual devices, so that sharding is tested everywhere; what was compiled is kept."""

from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 8)
# Between tests, workers and runs: most of the suite's time would be spent on compiling.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache/jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
