"""Arrays in memory that the main process shares with its worker processes.

A pipe would copy each byte twice and take most of the main process's time. Memory is reused when
its arrays are garbage, because new memory costs a page fault for every 4 KB.
"""

import collections
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence

import numpy as np

Shapes = Sequence[tuple[int, ...]]


class Segment:
    """Memory that other processes of this user can map.

    Attributes:
        path: Path at which they open it while this object lives.
    """

    def __init__(self, size: int):
        """Allocates `size` bytes."""
        # Unlike /dev/shm, a memfd has no limit in containers, and no name that a crash leaves.
        if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
            descriptor = os.memfd_create("examples")
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            descriptor, self.path = tempfile.mkstemp(prefix="deepfill_examples_")
            weakref.finalize(self, os.unlink, self.path)
        weakref.finalize(self, os.close, descriptor)
        os.truncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)

    def bytes(self) -> np.ndarray:
        """Returns an array of all bytes; its views keep it alive."""
        return np.frombuffer(self._memory, np.uint8)


class Segments:
    """Segments by size. Each belongs to the arrays of one batch at a time."""

    def __init__(self) -> None:
        self._free: dict[int, collections.deque[Segment]] = {}

    def take(self, shapes: Shapes) -> tuple[str, list[np.ndarray]]:
        """Returns the path of a segment, and the uint8 arrays in it, with any content."""
        size = sum(map(math.prod, shapes))
        free = self._free.setdefault(size, collections.deque())
        try:
            segment = free.pop()
        except IndexError:
            segment = Segment(size)
        content = segment.bytes()
        weakref.finalize(content, free.append, segment).atexit = False
        return segment.path, split(content, shapes)


def open_segment(path: str) -> np.ndarray:
    """Maps a segment of another process; returns an array of all bytes."""
    with open(path, "r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)


def split(content: np.ndarray, shapes: Shapes) -> list[np.ndarray]:
    """Returns the arrays of these shapes that lie one after the other in a segment."""
    parts, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        parts.append(content[start:stop].reshape(shape))
        start = stop
    return parts
