"""The inpainting service behind the web UI and the HTTP API; it does not depend on either."""

from collections.abc import Mapping

from deepfill_jax import pictures
from deepfill_jax.app.queue import MAX_WAITING, Queue
from deepfill_jax.app.quota import Quota
from deepfill_jax.app.work_limits import (
    MAX_ORIGINAL_PIXELS,
    MAX_SECONDS,
    MAX_STORED_BYTES,
    Limits,
)
from deepfill_jax.app.worker import Worker
from deepfill_jax.inpaint.classical import Classical, Method
from deepfill_jax.inpaint.inpainter import WORKING_SIZE


class Service:
    """Inpaints images with the served models, one at a time, each on all cores.

    Attributes:
        models: The models, by name.
        queue: The queue of requests.
        worker: The process that does the work, one job at a time; see `Queue.exclusive`.
        quota: The limit on the size of temporary files.
        max_pixels: Maximum number of pixels of an image, before and after it is extended.
    """

    def __init__(
        self,
        models: Mapping[str, Method],
        *,
        max_pixels: int = pictures.MAX_PIXELS,
        max_original_pixels: int = MAX_ORIGINAL_PIXELS,
        max_seconds: float = MAX_SECONDS,
        max_stored_bytes: int = MAX_STORED_BYTES,
        waiting: int = MAX_WAITING,
    ):
        """Takes the models and the limits.

        Args:
            models: The models, by name.
            max_pixels: See `Service`.
            max_original_pixels: Maximum number of pixels for the strategy "original".
            max_seconds: Maximum duration of a request, without waiting.
            max_stored_bytes: Maximum size of all temporary files.
            waiting: Maximum number of waiting requests.
        """
        self.models, self.max_pixels = dict(models), max_pixels
        self.queue, self.quota = Queue(waiting), Quota(max_stored_bytes)
        limits = Limits(max_pixels, max_original_pixels, max_seconds)
        self.worker = Worker(self.models, limits)

    def working_size(self, name: str) -> int | None:
        """Returns the side, in pixels, at which a model works best; None for classical methods."""
        model = self.models[name]
        if isinstance(model, Classical):
            return None
        return model.metadata.get("image_size", WORKING_SIZE)

    def guided(self, name: str) -> bool:
        """Whether a model takes sketches."""
        return self.models[name].guided

    def license(self, name: str) -> str | None:
        """Returns the license of a model's weights, or None if it is not known."""
        return self.models[name].metadata.get("license")

    def purpose(self, name: str) -> str | None:
        """Returns what a model is for, or None if it is not known."""
        return self.models[name].metadata.get("purpose")
