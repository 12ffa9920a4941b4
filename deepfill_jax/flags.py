"""The flags of training, evaluation and the doctor."""

import os
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from deepfill_jax import config as config_keys
from deepfill_jax import renamed
from deepfill_jax.errors import UsageError

FLAGS = flags.FLAGS

config_flags.DEFINE_config_file(
    "config", None, "A config file; --config.KEY=VALUE changes a value.", lock_config=True
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where a run has several")
flags.DEFINE_integer("num_processes", None, "How many it has; srun and mpirun say so themselves")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0")
flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, logs.")
flags.DEFINE_enum("mode", "train", ["train", "eval", "doctor"], "What to do.")
flags.DEFINE_string(
    "model", None, "eval: name or file of a model, instead of a checkpoint of the workdir"
)
flags.DEFINE_string("baseline", None, "eval: telea, navier_stokes, patchmatch, biharmonic or mean")
flags.DEFINE_string("predictions", None, "eval: a folder of results, named by the picture's index")
flags.DEFINE_string(
    "step", None, "eval: which checkpoint of the workdir: its number, or best; default: the newest"
)
flags.DEFINE_bool(
    "start_over",
    False,
    "train: begin at step 0 where the workdir's checkpoints are lost or corrupt, which is refused "
    "otherwise; a checkpoint that is whole is resumed all the same",
)
flags.DEFINE_string(
    "output", None, "eval: where to write; default WORKDIR/eval/NAME, or REPORT/NAME"
)
flags.DEFINE_string("report", None, "eval: a folder for index.html, a page of the evaluation")
flags.DEFINE_list("compare", "telea,navier_stokes,mean", "eval: baselines that the page compares")


def parse(argv: Sequence[str]) -> ConfigDict:
    """Parses a command line, the program's name first; returns its config and fills `FLAGS`.

    Raises:
        UsageError: A flag or a config key is wrong, or the config is missing.
    """
    renamed.refuse_old_flags(argv[1:])
    config_keys.check_overrides(argv[1:])
    try:
        rest = FLAGS(argv)[1:]
        if rest:
            raise UsageError(f"Unknown arguments {' '.join(rest)}; flags begin with --.")
        if FLAGS.config is None:
            raise UsageError("--config is missing, for example --config=configs/places.py.")
        config_keys.check(FLAGS.config)
    except UsageError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # Of what the config library says, with tracebacks of its own, the last line is for users.
        reason = str(error.args[0]).strip().splitlines()[-1].strip()
        raise UsageError(f"The command line cannot be used: {reason}") from error
    # TensorFlow reads pictures later; what it says at its import helps nobody.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    return FLAGS.config


def require_workdir() -> str:
    """The run's folder.

    Raises:
        UsageError: The flag is missing.
    """
    if not FLAGS.workdir:
        raise UsageError("--workdir is missing: the folder for checkpoints and logs.")
    return FLAGS.workdir
