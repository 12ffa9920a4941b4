"""The command-line flags of training, evaluation and the pre-flight check."""

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from deepfill_jax import config as config_keys
from deepfill_jax import published, renamed
from deepfill_jax.errors import UsageError
from deepfill_jax.local_paths import require_local

try:
    from absl import flags
    from ml_collections import ConfigDict, config_flags
except ImportError as error:
    raise UsageError(
        f"Training and evaluation need {error.name}: pip install 'deepfill_jax[train]'."
    ) from error

FLAGS = flags.FLAGS

config_flags.DEFINE_config_file(
    "config",
    None,
    "Name or file of a config, such as places or configs/places.py. NAME:VARIANT chooses a "
    "variant; --config.KEY=VALUE changes a value.",
    lock_config=True,
)
flags.DEFINE_string("coordinator", None, "Address of process 0 of a multi-process run.")
flags.DEFINE_integer("num_processes", None, "Number of processes; srun and mpirun set it.")
flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
flags.DEFINE_bool("offline", False, "Use published weights from the cache and download none.")
flags.DEFINE_string("workdir", None, "Folder of the run, for checkpoints and logs.")
flags.DEFINE_enum("mode", "train", ["train", "eval", "doctor"], "What the command does.")
flags.DEFINE_string("model", None, "Name, file or address of a model, as `convert` reads it.")
flags.DEFINE_string("baseline", None, "telea, navier_stokes, patchmatch, biharmonic or mean.")
flags.DEFINE_string("predictions", None, "Folder of results, named by the image's index.")
flags.DEFINE_string("step", None, "Checkpoint of the run: a step, or best; default: the newest.")
flags.DEFINE_bool(
    "start_over",
    False,
    "Begin at step 0 if the checkpoints of the run are lost or corrupt. If one is intact, training "
    "still resumes from it.",
)
flags.DEFINE_string("output", None, "Folder for images and scores; default: no images.")
flags.DEFINE_string("report", None, "Folder for the HTML report, index.html.")
flags.DEFINE_list("compare", "telea,navier_stokes,mean", "Baselines that the report compares.")

# Flags by group, each with the placeholder for its value in the help; "" marks flags without one.
RUN = {"config": "NAME", "workdir": "DIR", "offline": ""}
TRAINING = {"start_over": ""}
PROCESSES = {"coordinator": "HOST:PORT", "num_processes": "N", "process_id": "I"}
EVALUATION = {
    "model": "MODEL",
    "baseline": "NAME",
    "predictions": "DIR",
    "step": "STEP",
    "output": "DIR",
    "report": "DIR",
    "compare": "NAMES",
}
MODE = {"mode": "MODE"}


class Command(NamedTuple):
    """A command that reads these flags: program name, texts for the help, and flags by group."""

    program: str
    usage: str
    about: str
    groups: dict[str, dict[str, str]]


COMMANDS = {
    "train": Command(
        "deepfill train",
        "--config=NAME [--config.KEY=VALUE ...] --workdir=DIR [--start_over]",
        "Trains a model as a config describes. The same command resumes the run in the folder.",
        {"run": RUN | TRAINING, "several processes": PROCESSES},
    ),
    "evaluate": Command(
        "deepfill evaluate",
        "[--config=NAME] [--config.KEY=VALUE ...] (--workdir=DIR | --model=MODEL | "
        "--baseline=NAME | --predictions=DIR) [--output=DIR] [--report=DIR]",
        "Scores a checkpoint, a model, a classical baseline or a folder of predictions on the "
        "validation images of a config, by default the run's, with frozen crops and masks.",
        {"run": RUN, "evaluation": EVALUATION, "several processes": PROCESSES},
    ),
    "doctor": Command(
        "deepfill doctor",
        "--config=NAME [--config.KEY=VALUE ...] --workdir=DIR",
        "Checks in about a minute whether a training run would work: devices, versions, images, "
        "masks, disk space, memory, speed, and whether the networks learn. Each failed check "
        "suggests a fix. The only file it writes is WORKDIR/doctor/batch.png.",
        {"run": RUN},
    ),
    "main": Command(
        "python -m deepfill_jax.main",
        "[--mode=train|eval|doctor] --config=NAME [--config.KEY=VALUE ...] --workdir=DIR ...",
        "Does the same as `deepfill train`, `deepfill evaluate` or `deepfill doctor`.",
        {
            "command": MODE,
            "run": RUN,
            "training (--mode=train)": TRAINING,
            "evaluation (--mode=eval)": EVALUATION,
            "several processes": PROCESSES,
        },
    ),
}


def parse(command: str, arguments: Sequence[str]) -> ConfigDict:
    """Parses a command line, fills `FLAGS` and returns the config; exits after `--help`.

    Args:
        command: A key of `COMMANDS`.
        arguments: The words after the command.

    Raises:
        UsageError: A flag or a config key is wrong, a path is remote storage, or the config is
            missing.
    """
    if {"-h", "-help", "--help"} & set(arguments):
        print(_help(COMMANDS[command]), end="")
        sys.exit(0)
    renamed.refuse_old_flags(arguments)
    config_keys.check_overrides(arguments)
    try:
        rest = FLAGS([command, *_with_config_path(_with_run_config(command, arguments))])[1:]
        if rest:
            raise UsageError(f"Unknown arguments {' '.join(rest)}; flags begin with --.")
        _refuse_flags_of_others(command, arguments)
        if FLAGS.config is None:
            raise UsageError(
                "--config is missing, for example --config=places; the package has "
                f"{', '.join(config_keys.names())}."
            )
        config_keys.check(FLAGS.config)
        for name in ("workdir", "output", "report", "predictions", "model"):
            if name != "model" or not (FLAGS.model or "").startswith(config_keys.WEIGHTS):
                require_local(f"--{name}", FLAGS[name].value or "")
    except UsageError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # Messages of the config library contain tracebacks; only their last line is for users.
        reason = str(error.args[0]).strip().splitlines()[-1].strip()
        raise UsageError(f"The command line cannot be used: {reason}") from error
    if FLAGS.offline:
        os.environ[published.OFFLINE] = "1"
    # TensorFlow is imported later to read images; its import messages are of no use to users.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    return FLAGS.config


def require_workdir() -> str:
    """Returns the run's folder.

    Raises:
        UsageError: `--workdir` is missing.
    """
    if not FLAGS.workdir:
        raise UsageError("--workdir is missing: the folder for checkpoints and logs.")
    return FLAGS.workdir


@contextlib.contextmanager
def joined_processes(config: ConfigDict) -> Iterator[None]:
    """Joins the other processes of the run that the flags name.

    An error in the body of the context ends the process immediately, without waiting for others.

    Raises:
        UsageError: The processes cannot be joined, or differ in their config or workdir.
    """
    from deepfill_jax import distributed  # Imported here, because it imports JAX.

    distributed.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    with distributed.abort_on_error():
        distributed.assert_same_on_all_processes("The config", config.to_json())
        distributed.assert_same_on_all_processes("--workdir", f"{FLAGS.workdir}")
        yield


def _with_run_config(command: str, arguments: Sequence[str]) -> Sequence[str]:
    """Adds the config of the run that `--workdir` names, if an evaluation names no config."""
    values = {}
    for argument, following in itertools.pairwise([*arguments, ""]):
        flag, equals, value = argument.partition("=")
        if flag.startswith("-"):
            values[flag.lstrip("-")] = value if equals else following
    evaluates = command == "evaluate" or values.get("mode") == "eval"
    if not evaluates or "config" in values or not values.get("workdir"):
        return arguments
    require_local("--workdir", values["workdir"])
    # It comes first, because changes of single values are flags that a config defines.
    run_config = config_keys.PACKAGE / "run_config.py"
    return [f"--config={run_config}:{values['workdir']}", *arguments]


def _with_config_path(arguments: Sequence[str]) -> list[str]:
    """Replaces the name of the config by its file, in `--config=NAME` and `--config NAME`."""
    replaced, is_value = [], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_value:
            argument = config_keys.find(argument)
        elif equals and flag in ("-config", "--config"):
            argument = f"{flag}={config_keys.find(value)}"
        is_value = argument in ("-config", "--config")
        replaced.append(argument)
    return replaced


def _refuse_flags_of_others(command: str, arguments: Sequence[str]) -> None:
    """Raises UsageError for flags that only other commands read; the doctor allows training's."""
    given = [x.lstrip("-").partition("=")[0] for x in arguments if x.startswith("-")]
    if command == "main":
        own, program = {"eval": "evaluate"}.get(FLAGS.mode, FLAGS.mode), f"--mode={FLAGS.mode}"
        foreign = set()
    else:
        own, program, foreign = command, COMMANDS[command].program, set(MODE)
    foreign |= set(TRAINING if own == "evaluate" else EVALUATION)
    wrong = [f"--{name}" for name in given if name in foreign]
    if wrong:
        raise UsageError(f"{program} has no flag {' and no flag '.join(wrong)}; see --help.")


def _help(command: Command) -> str:
    parser = argparse.ArgumentParser(
        command.program,
        description=command.about,
        usage=f"%(prog)s {command.usage}",
        epilog=f"Configs by name: {', '.join(config_keys.names())}. Their keys are in "
        "deepfill_jax/config_table.py. Exit codes: 0 success, 1 failure, 2 usage error, 75 stopped "
        "on request (the same command resumes).",
    )
    for title, group in command.groups.items():
        options = parser.add_argument_group(title)
        for name, value in group.items():
            kind: dict[str, Any] = {"metavar": value} if value else {"action": "store_true"}
            options.add_argument(f"--{name}", help=FLAGS[name].help, **kind)
    return parser.format_help()
