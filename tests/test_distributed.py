"""Joining and agreement of processes, with mocks; test_processes.py starts real processes."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from deepfill_jax import distributed
from deepfill_jax.errors import UsageError


@pytest.fixture
def joined(monkeypatch):
    """Lists the arguments of each call of `jax.distributed.initialize`, which does nothing."""
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    for name in distributed.TASK_COUNTS:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_single_process_does_not_join(joined):
    distributed.join()
    assert not joined


@pytest.mark.parametrize("name", distributed.TASK_COUNTS)
def test_tasks_of_a_job_join_without_arguments(joined, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    distributed.join()
    assert not joined
    monkeypatch.setenv(name, "2")
    distributed.join()
    ((args, kwargs),) = joined
    assert args == (None, None, None) and kwargs["cluster_detection_method"] is None


def test_arguments_have_priority_inside_a_job(joined, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.join("10.0.0.1:1234", 2, 0)
    ((args, kwargs),) = joined
    assert args == ("10.0.0.1:1234", 2, 0)
    assert kwargs["coordinator_bind_address"] == "10.0.0.1:1234"  # It listens on this one only.
    assert kwargs["cluster_detection_method"] == "deactivate"


def test_incomplete_arguments_are_refused(joined):
    with pytest.raises(UsageError, match="--coordinator and --process_id missing"):
        distributed.join(num_processes=2)
    assert not joined


def test_processes_with_different_values_are_named(monkeypatch):
    distributed.assert_same_on_all_processes("The config", "a")
    monkeypatch.setattr(
        multihost_utils, "process_allgather", lambda own: np.array([own, own + 1, own, own + 2])
    )
    with pytest.raises(UsageError, match="The config must be the same for all 4 .* in 1, 3"):
        distributed.assert_same_on_all_processes("The config", "a")


def test_cores_are_divided_between_the_processes_that_may_use_them(monkeypatch):
    monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda pid: set(range(8)), False)
    assert distributed.own_cores() == 8

    def gather(own):
        """This process; one with the same cores; a bound one; and one of another machine."""
        bound, elsewhere = own.copy(), own.copy()
        bound[:4] = 0
        elsewhere[-1] += 1
        return np.stack([own, own, bound, elsewhere])

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    assert distributed.own_cores() == 3  # 4 of 2 processes, and 4 of 3.
    gathered = lambda own: np.stack([own] * 20)  # noqa: E731
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    assert distributed.own_cores() == 1
