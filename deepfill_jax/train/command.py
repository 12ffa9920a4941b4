"""The body of `deepfill train`."""

from ml_collections import ConfigDict

from deepfill_jax import compile_cache, flags
from deepfill_jax.train import loop


def run(config: ConfigDict, workdir: str) -> None:
    """Trains in a folder, together with the other processes of the run that the flags name.

    Raises:
        UsageError, RunError, PreemptedError: See `loop.train`.
    """
    with flags.joined_processes(config):
        compile_cache.enable()
        loop.train(config, workdir, start_over=flags.FLAGS.start_over)
