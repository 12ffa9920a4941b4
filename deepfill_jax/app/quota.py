"""The limit on the size of the server's temporary files."""

import threading

from deepfill_jax.errors import RunError


class QuotaError(RunError):
    """The temporary files have reached their maximum size."""


class Quota:
    """Counts the bytes of stored files, and of requests that are being processed."""

    def __init__(self, max_bytes: int):
        """Takes the maximum number of bytes."""
        self._max_bytes, self._held, self._stored = max_bytes, 0, 0
        self._lock = threading.Lock()

    def hold(self, size: int) -> None:
        """Counts bytes until they are released.

        Raises:
            QuotaError: They exceed the limit, and are not counted.
        """
        with self._lock:
            # Requests without a body are answered even if more is stored than the limit.
            if size > 0 and self._held + self._stored + size > self._max_bytes:
                raise QuotaError(
                    "The server has no room for more files: their limit is "
                    f"{self._max_bytes / 1e9:g} GB. Try again later, or start the server with a "
                    "larger --max-gigabytes."
                )
            self._held += size

    def release(self, size: int, *, is_stored: bool = False) -> None:
        """Counts bytes no longer, or until the next `set_stored` if they are stored."""
        with self._lock:
            self._held -= size
            self._stored += size if is_stored else 0

    def check(self) -> None:
        """Raises a `QuotaError` if the limit is reached."""
        self.hold(1)
        self.release(1)

    def set_stored(self, size: int) -> None:
        """Sets the size of the stored files, as found on disk."""
        with self._lock:
            self._stored = size
