"""What a run's folder says about the run: its config and its networks."""

from pathlib import Path

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert.run import CONFIG
from deepfill_jax.train.state import TrainState


def write(config: ConfigDict, workdir: Path, state: TrainState) -> None:
    """Writes the config and the list of parameters, and prints the number of parameters."""
    with atomic_write(workdir / CONFIG) as unfinished:
        unfinished.write_text(config.to_json(indent=2) + "\n")
    overview = {"generator": state.generator.params, "discriminator": state.discriminator.params}
    text = parameter_overview.get_parameter_overview(overview)
    (workdir / "parameters.txt").write_text(text + "\n")
    counts = {name: parameter_overview.count_parameters(net) for name, net in overview.items()}
    print(
        f"{config.model.architecture}: {counts['generator']:,} generator and "
        f"{counts['discriminator']:,} discriminator parameters on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s); step {int(state.step)} of {config.num_steps}.",
        flush=True,
    )
