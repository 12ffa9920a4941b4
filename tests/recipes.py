"""Recipes for tests of the worker processes, which import this file: it has no slow imports."""

import os
import sys

import numpy as np

from deepfill_jax.errors import UsageError


def see(picture: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the picture's red value, and the index."""
    return picture[0, 0, :1], np.array([index], np.uint8)


def talk(picture: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Does the same as `see`, and prints."""
    print("a picture", flush=True)
    return see(picture, index)


def refuse(picture: np.ndarray, index: int, *, refused: int) -> tuple[np.ndarray, np.ndarray]:
    """Does the same as `see`, but raises UsageError for one index."""
    if index == refused:
        raise UsageError(f"picture {index}")
    return see(picture, index)


def die(picture: np.ndarray, index: int) -> None:
    """Ends the process."""
    sys.stderr.flush()
    os._exit(7)


def large(picture: np.ndarray, index: int) -> tuple[np.ndarray]:
    """Returns a million bytes."""
    return (np.zeros(1 << 20, np.uint8),)


class Counted:
    """Pickles as `see` and counts how often it is pickled."""

    times_sent = 0

    def __reduce__(self) -> tuple:  # noqa: D105
        """Pickles as `see`."""
        self.times_sent += 1
        return (_give_see, ())


def _give_see():
    return see
