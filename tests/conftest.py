"""Eight virtual devices, so that sharding is tested everywhere; most tests use the first."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
