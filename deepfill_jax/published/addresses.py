"""Addresses of weights: known names, https:// and hf:// URLs, and the checksums in them."""

import dataclasses
import os
import re
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

from deepfill_jax.errors import UsageError
from deepfill_jax.published.registry import BY_HAND, ENTRIES

MIRROR = "DEEPFILL_MIRROR"  # URL of a folder with the files of `ENTRIES`.
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HUB = "hf"


@dataclasses.dataclass(frozen=True)
class Address:
    """Where to download a file.

    Attributes:
        url: https:// or, on this machine, http://; hf://OWNER/REPO/FILE for Hugging Face.
        sha256: All or the first digits of the file's SHA-256; empty if it is unknown.
    """

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The last part of the URL's path."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def hub_file(self) -> tuple[str, str] | None:
        """OWNER/REPO and FILE of an hf:// URL, None for others."""
        parts = urlsplit(self.url)
        if parts.scheme != _HUB:
            return None
        repository, _, file = parts.path[1:].partition("/")
        return f"{parts.netloc}/{repository}", file


def is_remote(source: object) -> bool:
    """Whether a source of weights is a known name or a URL; any other is a path."""
    return str(source) in ENTRIES.keys() | BY_HAND.keys() or "://" in str(source)


def resolve(source: str) -> Address:
    """Finds the address of a source.

    Args:
        source: A key of `ENTRIES`, or a URL. `#sha256=DIGITS` at its end states its checksum;
            without it, digits at the end of the file's name do, as in NAME-10d15793.pth.

    Raises:
        UsageError: The source can only be downloaded by hand, or is not a valid address.
    """
    if source in BY_HAND:
        raise UsageError(BY_HAND[source].instructions(source))
    if source in ENTRIES:
        url, mirror = ENTRIES[source].url, os.environ.get(MIRROR)
        source = f"{mirror.rstrip('/')}/{PurePosixPath(url).name}" if mirror else url
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise UsageError(f"{source} is not a valid URL ({error}).") from error
    _check(source, parts)
    stated = re.fullmatch(r"sha256=([0-9a-f]{8,64})", parts.fragment)
    if parts.fragment and not stated:
        raise UsageError(
            f"{source} ends in #{parts.fragment}, which is not #sha256= and 8 to 64 digits 0 to f."
        )
    in_name = re.search(r"-([0-9a-f]{8,64})\.\w+$", parts.path)
    digits = stated or in_name
    return Address(parts._replace(fragment="").geturl(), digits[1] if digits else "")


def _check(source: str, parts: SplitResult) -> None:
    """Raises UsageError if a URL cannot be used."""
    if parts.scheme == _HUB:
        if not re.fullmatch(r"hf:/(/\w[\w.-]*){3,}", f"hf://{parts.netloc}{parts.path}"):
            raise UsageError(f"{source} is not of the form hf://OWNER/REPO/FILE.")
    elif parts.scheme != "https" and (parts.scheme, parts.hostname in _LOOPBACK) != ("http", True):
        raise UsageError(
            f"{source} must begin with https:// or hf://; http:// is allowed on this machine only."
        )
    name = PurePosixPath(parts.path).name
    if not parts.netloc or not name.endswith(SUFFIXES):
        raise UsageError(
            f"{source} does not name a file of weights, which ends in {', '.join(SUFFIXES)}."
        )
