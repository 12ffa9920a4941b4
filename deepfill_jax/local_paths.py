"""Refuses addresses of remote storage where only a path of this machine can be used."""

import os
import re

from deepfill_jax.errors import UsageError

# `pathlib` turns gs://bucket into gs:/bucket. A drive of Windows has one letter.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def require_local(name: str, path: str | os.PathLike[str]) -> None:
    """Checks that a path is not an address such as gs://BUCKET/FOLDER.

    Args:
        name: The flag, config key or argument that holds the path, for the message.
        path: The path; it need not exist.

    Raises:
        UsageError: It is an address. A file system would create a local folder named "gs:".
    """
    if _ADDRESS.match(os.fspath(path)):
        raise UsageError(
            f"{name}={os.fspath(path)} is remote storage, which cannot be used directly; mount the "
            "bucket, for example with gcsfuse or mount-s3, and give the path of the mounted folder."
        )
