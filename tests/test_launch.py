"""The launch files, with stand-ins for `python` and for SLURM's commands: no JAX, no cluster."""

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

# Writes its arguments to a file process0, process1, ...; then the test's code runs.
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
def place(tmp_path, monkeypatch):
    """A folder that comes first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def put(place, name, body):
    path = place / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def put_python(place, body):
    (place / "stand_in.py").write_text(f"{PYTHON}add(json.dumps(sys.argv[1:]))\n{body}\n")
    put(place, "python", f'exec "{sys.executable}" -SE "{place}/stand_in.py" "$@"')


def start(script, *arguments):
    # Bash cannot trap INT where the tests themselves run in the background, deaf to it.
    return subprocess.Popen(["env", "--default-signal=INT", LAUNCH / script, *arguments])


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def lines(place, process):
    path = place / f"process{process}"
    return path.read_text().splitlines() if path.exists() else []


def alive(place, process):
    """Whether the process whose second line is its id is still there."""
    try:
        os.kill(int(lines(place, process)[1]), 0)
    except ProcessLookupError:
        return False
    return True


def test_shellcheck_finds_nothing():
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"  # Not of PATH: in a venv.
    checked = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_and_has_one_command(script):
    text = script.read_text()
    assert len(text.splitlines()) < 40
    (command,) = text.replace("\\\n", " ").split("python -m deepfill_jax.main")[1:]
    assert '"$@"' in command.splitlines()[0]
    assert os.access(script, os.X_OK)


def test_local_passes_arguments_and_exit_code(place):
    put_python(place, "sys.exit(75)")
    assert start("local.sh", "--workdir=a b").wait(10) == 75
    assert json.loads(lines(place, 0)[0]) == ["-m", "deepfill_jax.main", "--workdir=a b"]


@pytest.mark.parametrize("gpus", [0, 3])
def test_processes_have_their_arguments_and_gpus(place, gpus):
    put(place, "nvidia-smi", f"((!{gpus})) || seq 0 {gpus - 1}")
    put_python(place, 'add(os.environ.get("CUDA_VISIBLE_DEVICES"))')
    assert start("processes.sh", "3", "--workdir=a b", "--step=1").wait(10) == 0
    addresses = set()
    for process in range(3):
        arguments, visible = lines(place, process)
        *command, coordinator, number, index, workdir, step = json.loads(arguments)
        assert command == ["-m", "deepfill_jax.main"]
        assert (number, index) == ("--num_processes=3", f"--process_id={process}")
        assert (workdir, step) == ("--workdir=a b", "--step=1")
        assert visible == (str(process) if gpus else "None")
        addresses.add(coordinator)
    (address,) = addresses
    port = address.removeprefix("--coordinator=127.0.0.1:")
    assert 20000 <= int(port) < 32768  # Below those that Linux gives to whoever asks for any.


def test_processes_take_the_gpus_they_are_given(place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    put_python(place, 'add(os.environ["CUDA_VISIBLE_DEVICES"])')
    assert start("processes.sh", "2").wait(10) == 0
    assert [lines(place, process)[1] for process in (0, 1)] == ["4", "6"]
    assert start("processes.sh", "3").wait(10) not in (0, 75)
    assert not lines(place, 2)


@pytest.mark.parametrize("code", [1, 75])
def test_the_first_process_that_fails_ends_the_others(place, code):
    # Process 1 fails; 0 ends when it is told to, with another code.
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
    put_python(place, body)
    assert start("processes.sh", "2").wait(10) == code
    assert lines(place, 0)[2:] == ["TERM"] and not alive(place, 0)


def test_processes_that_fail_at_once_are_not_missed(place):
    put_python(place, "sys.exit(5)")
    assert start("processes.sh", "4").wait(10) == 5


@pytest.mark.slow
def test_a_process_that_hangs_is_killed(place):
    put_python(
        place,
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); add(os.getpid())\n"
        "time.sleep(0.3) if process else time.sleep(60)\nsys.exit(7)",
    )
    assert start("processes.sh", "2").wait(30) == 7
    assert not alive(place, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_processes(place, number):
    body = """
signal.signal(signal.SIGTERM, lambda *_: (add("TERM"), time.sleep(0.2), sys.exit(75)))
add(os.getpid())
time.sleep(60)
"""
    put_python(place, body)
    script = start("processes.sh", "2")
    wait_for(lambda: all(len(lines(place, process)) == 2 for process in (0, 1)))
    script.send_signal(number)
    assert script.wait(10) == 75
    assert all("TERM" in lines(place, process) for process in (0, 1))
    assert not any(alive(place, process) for process in (0, 1))


def slurm(place, *, code, state="RUNNING"):
    """Runs the job script; returns its exit code and what was asked of `scontrol`."""
    put(place, "srun", f'echo "$JAX_COORDINATOR_BIND_ADDRESS $*" >"{place}/srun.txt"; exit {code}')
    put(place, "squeue", f"echo {state}")
    asked = place / "scontrol.txt"
    put(place, "scontrol", f'echo "$*" >>"{asked}"; [[ $1 == requeue ]] || printf "n7\\nn9\\n"')
    environment = os.environ | {"SLURM_JOB_ID": "5001", "SLURM_JOB_NODELIST": "n[7,9]"}
    command = [LAUNCH / "slurm.sh", "--workdir=runs/places"]
    result = subprocess.run(command, env=environment, timeout=10)
    return result.returncode, asked.read_text().splitlines()[1:]


def test_slurm_job_starts_the_command(place):
    assert slurm(place, code=0) == (0, [])
    address, command = (place / "srun.txt").read_text().split(maxsplit=1)
    assert address == f"n7:{5001 - 4096 + 61440}"  # Where JAX's SlurmCluster sends its processes.
    assert command.endswith(" python -m deepfill_jax.main --workdir=runs/places\n")


@pytest.mark.parametrize(
    "code, state, requeues",
    [
        (75, "RUNNING", True),
        (75, "COMPLETING", False),  # Cancelled by its owner, or requeued by SLURM itself.
        (1, "RUNNING", False),
        (137, "RUNNING", False),
    ],
)
def test_slurm_job_is_requeued_when_all_is_saved(place, code, state, requeues):
    asked = ["requeue 5001"] if requeues else []
    assert slurm(place, code=code, state=state) == (code, asked)


def test_slurm_job_asks_for_its_turn_though_its_shell_is_signalled(place):
    put(place, "srun", f'touch "{place}/running"; sleep 0.3; exit 75')
    put(place, "squeue", "echo RUNNING")
    put(place, "scontrol", f'echo "$*" >>"{place}/scontrol.txt"')
    environment = os.environ | {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n7"}
    script = subprocess.Popen([LAUNCH / "slurm.sh"], env=environment)
    wait_for((place / "running").exists)
    script.terminate()
    assert script.wait(10) == 75
    assert "requeue 1" in (place / "scontrol.txt").read_text()


@pytest.fixture(scope="module")
def manifests():
    return list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(manifests, version):
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_kubernetes_names_and_numbers_agree(manifests):
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


def test_docker_is_given_what_it_copies_and_no_more():
    copies = [
        line.split()[1:-1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
    ]
    copied = {path for paths in copies for path in paths}
    given = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in given if line.startswith("!")} and "*" in given
    assert all((ROOT / path).exists() for path in copied)
