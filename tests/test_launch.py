"""Launch files, tested with fake `python` and SLURM commands, without JAX or a cluster."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))

# A fake interpreter, which records its arguments in a file process0, process1, ..., and then runs
# the code of a test.
PYTHON = """
import json, os, signal, sys, time
from pathlib import Path

flags = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[3:] if "=" in argument)
process = int(flags.get("process_id", 0))
record = Path(__file__).with_name(f"process{process}")

def add(line):
    with record.open("a") as lines:
        print(line, file=lines)

"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Creates a folder that comes first on PATH, for fake commands."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def write_command(folder, name, body):
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def write_python(folder, body):
    (folder / "fake.py").write_text(f"{PYTHON}add(json.dumps(sys.argv[1:]))\n{body}\n")
    write_command(folder, "python", f'exec "{sys.executable}" -SE "{folder}/fake.py" "$@"')


def start(script, *arguments):
    # If the tests run in the background, they ignore INT, and bash could not trap it either.
    return subprocess.Popen(["env", "--default-signal=INT", LAUNCH / script, *arguments])


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines(folder, process):
    path = folder / f"process{process}"
    return path.read_text().splitlines() if path.exists() else []


def alive(folder, process):
    """Tells whether a process still runs; its second recorded line is its process id."""
    try:
        os.kill(int(lines(folder, process)[1]), 0)
    except ProcessLookupError:
        return False
    return True


def test_shellcheck_reports_no_problems():
    # The virtual environment's scripts need not be on PATH.
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    result = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_short_and_starts_one_command(script):
    text = script.read_text()
    assert len(text.splitlines()) < 40
    (command,) = text.replace("\\\n", " ").split("python -m deepfill_jax.main")[1:]
    assert '"$@"' in command.splitlines()[0]
    assert os.access(script, os.X_OK)


def test_local_passes_arguments_and_exit_code(folder):
    write_python(folder, "sys.exit(75)")
    assert start("local.sh", "--workdir=a b").wait(10) == 75
    assert json.loads(lines(folder, 0)[0]) == ["-m", "deepfill_jax.main", "--workdir=a b"]


@pytest.mark.parametrize("gpus", [0, 3])
def test_processes_get_their_arguments_and_one_gpu_each(folder, gpus):
    write_command(folder, "nvidia-smi", f"((!{gpus})) || seq 0 {gpus - 1}")
    write_python(folder, 'add(os.environ.get("CUDA_VISIBLE_DEVICES"))')
    assert start("processes.sh", "3", "--workdir=a b", "--step=1").wait(10) == 0
    addresses = set()
    for process in range(3):
        arguments, visible = lines(folder, process)
        *command, coordinator, number, index, workdir, step = json.loads(arguments)
        assert command == ["-m", "deepfill_jax.main"]
        assert (number, index) == ("--num_processes=3", f"--process_id={process}")
        assert (workdir, step) == ("--workdir=a b", "--step=1")
        assert visible == (str(process) if gpus else "None")
        addresses.add(coordinator)
    (address,) = addresses
    port = address.removeprefix("--coordinator=127.0.0.1:")
    assert 20000 <= int(port) < 32768  # Linux assigns ports from 32768 to clients.


def test_processes_use_the_gpus_of_cuda_visible_devices(folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    write_python(folder, 'add(os.environ["CUDA_VISIBLE_DEVICES"])')
    assert start("processes.sh", "2").wait(10) == 0
    assert [lines(folder, process)[1] for process in (0, 1)] == ["4", "6"]
    assert start("processes.sh", "3").wait(10) not in (0, 75)
    assert not lines(folder, 2)


@pytest.mark.parametrize("code", [1, 75])
def test_first_failing_process_stops_the_others_and_sets_the_exit_code(folder, code):
    # Process 1 fails. Process 0 exits on SIGTERM, with another code.
    body = f"""
add(os.getpid())
if process == 1:
    while not Path(__file__).with_name("process0").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    sys.exit({code})
signal.signal(signal.SIGTERM, lambda *_: (add("TERM"), sys.exit(3)))
time.sleep(60)
"""
    write_python(folder, body)
    assert start("processes.sh", "2").wait(10) == code
    assert lines(folder, 0)[2:] == ["TERM"] and not alive(folder, 0)


def test_immediate_failure_of_processes_is_reported(folder):
    write_python(folder, "sys.exit(5)")
    assert start("processes.sh", "4").wait(10) == 5


@pytest.mark.slow
def test_process_that_ignores_sigterm_is_killed(folder):
    write_python(
        folder,
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); add(os.getpid())\n"
        "time.sleep(0.3) if process else time.sleep(60)\nsys.exit(7)",
    )
    assert start("processes.sh", "2").wait(30) == 7
    assert not alive(folder, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_processes(folder, number):
    body = """
signal.signal(signal.SIGTERM, lambda *_: (add("TERM"), time.sleep(0.2), sys.exit(75)))
add(os.getpid())
time.sleep(60)
"""
    write_python(folder, body)
    script = start("processes.sh", "2")
    wait_for(lambda: all(len(lines(folder, process)) == 2 for process in (0, 1)))
    script.send_signal(number)
    assert script.wait(10) == 75
    assert all("TERM" in lines(folder, process) for process in (0, 1))
    assert not any(alive(folder, process) for process in (0, 1))


def slurm(folder, *, code, state="RUNNING"):
    """Runs the job script; returns its exit code and the calls of `scontrol` after the first."""
    write_command(
        folder, "srun", f'echo "$JAX_COORDINATOR_BIND_ADDRESS $*" >"{folder}/srun.txt"; exit {code}'
    )
    write_command(folder, "squeue", f"echo {state}")
    calls = folder / "scontrol.txt"
    write_command(
        folder, "scontrol", f'echo "$*" >>"{calls}"; [[ $1 == requeue ]] || printf "n7\\nn9\\n"'
    )
    environment = os.environ | {"SLURM_JOB_ID": "5001", "SLURM_JOB_NODELIST": "n[7,9]"}
    environment["SLURM_CPUS_PER_TASK"] = "8"
    command = [LAUNCH / "slurm.sh", "--workdir=runs/places"]
    result = subprocess.run(command, env=environment, timeout=10)
    return result.returncode, calls.read_text().splitlines()[1:]


def test_slurm_job_starts_the_command(folder):
    assert slurm(folder, code=0) == (0, [])
    address, command = (folder / "srun.txt").read_text().split(maxsplit=1)
    assert address == f"n7:{5001 - 4096 + 61440}"  # JAX's SlurmCluster uses this port.
    assert " --cpus-per-task=8 " in command
    assert command.endswith(" python -m deepfill_jax.main --workdir=runs/places\n")


@pytest.mark.parametrize("cores", [{}, {"SLURM_CPUS_PER_TASK": "1"}])
def test_slurm_job_of_one_core_per_task_is_refused(cores):
    environment = {name: x for name, x in os.environ.items() if not name.startswith("SLURM_")}
    command = [LAUNCH / "slurm.sh", "--workdir=runs/places"]
    ran = subprocess.run(command, env=environment | cores, capture_output=True, text=True)
    assert ran.returncode == 2 and "add --cpus-per-task=8 to sbatch" in ran.stderr


@pytest.mark.parametrize(
    "code, state, requeues",
    [
        (75, "RUNNING", True),
        (75, "COMPLETING", False),  # The owner cancelled the job, or SLURM itself requeued it.
        (1, "RUNNING", False),
        (137, "RUNNING", False),
    ],
)
def test_slurm_job_is_requeued_only_after_preemption(folder, code, state, requeues):
    calls = ["requeue 5001"] if requeues else []
    assert slurm(folder, code=code, state=state) == (code, calls)


def test_slurm_job_is_requeued_when_its_shell_gets_a_signal(folder):
    write_command(folder, "srun", f'touch "{folder}/running"; sleep 0.3; exit 75')
    write_command(folder, "squeue", "echo RUNNING")
    write_command(folder, "scontrol", f'echo "$*" >>"{folder}/scontrol.txt"')
    environment = os.environ | {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n7"}
    environment["SLURM_CPUS_PER_TASK"] = "2"
    script = subprocess.Popen([LAUNCH / "slurm.sh"], env=environment)
    wait_for((folder / "running").exists)
    script.terminate()
    assert script.wait(10) == 75
    assert "requeue 1" in (folder / "scontrol.txt").read_text()


@pytest.fixture(scope="module")
def manifests():
    return list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_kubernetes_manifests_are_valid(manifests, version):
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_kubernetes_names_and_numbers_are_consistent(manifests):
    service, job = manifests
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(argument.split("=", 1) for argument in container["args"])
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    assert flags["--coordinator"] == f"{name}-0.{domain}:8476" and pod["subdomain"] == domain
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    pods = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == pods == int(flags["--num_processes"])
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"Ignore"}
    assert rules[1]["onExitCodes"]["containerName"] == container["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_dockerignore_admits_exactly_the_copied_files():
    copies = [
        line.split()[1:-1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
    ]
    copied = {path for paths in copies for path in paths}
    given = (ROOT / ".dockerignore").read_text().splitlines()
    roots = {path.split("/")[0] for path in copied}
    assert roots == {line[1:] for line in given if line.startswith("!")} and "*" in given
    assert all((ROOT / path).exists() for path in copied)
