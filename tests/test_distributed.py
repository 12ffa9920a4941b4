"""How processes join and agree, with stand-ins for the others; test_processes.py has real ones."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from deepfill_jax import distributed
from deepfill_jax.errors import UsageError


@pytest.fixture
def joined(monkeypatch):
    """What JAX was asked to join, if anything."""
    asked = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **more: asked.append((args, more))
    )
    for name in distributed.TASK_COUNTS:
        monkeypatch.delenv(name, raising=False)
    return asked


def test_alone_nothing_is_joined(joined):
    distributed.join()
    assert not joined


@pytest.mark.parametrize("name", distributed.TASK_COUNTS)
def test_tasks_of_a_job_find_one_another(joined, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    distributed.join()
    assert not joined
    monkeypatch.setenv(name, "2")
    distributed.join()
    ((args, more),) = joined
    assert args == (None, None, None) and more["cluster_detection_method"] is None


def test_what_is_given_is_taken_even_inside_a_job(joined, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.join("10.0.0.1:1234", 2, 0)
    ((args, more),) = joined
    assert args == ("10.0.0.1:1234", 2, 0)
    assert more["coordinator_bind_address"] == "10.0.0.1:1234"  # And at no other address.
    assert more["cluster_detection_method"] == "deactivate"


def test_half_of_what_is_needed_is_refused(joined):
    with pytest.raises(UsageError, match="--coordinator and --process_id missing"):
        distributed.join(num_processes=2)
    assert not joined


def test_processes_that_differ_from_the_first_are_named(monkeypatch):
    distributed.assert_same_on_all_processes("The config", "a")
    monkeypatch.setattr(
        multihost_utils, "process_allgather", lambda own: np.array([own, own + 1, own, own + 2])
    )
    with pytest.raises(UsageError, match="The config must be the same for all 4 .* 1, 3 are not"):
        distributed.assert_same_on_all_processes("The config", "a")
