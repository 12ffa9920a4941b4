"""Downloads one file over HTTP; interrupted downloads resume."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from requests.exceptions import ChunkedEncodingError, InvalidSchema
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.progress import progress_bar

ATTEMPTS = 3
PAUSE = 1.0  # Seconds before the second attempt; twice that before the third.
TIMEOUT = (10, 30)  # Seconds to connect, and between two parts of the response.
BLOCK = 2**14  # Bytes that are written at once; an interruption loses fewer than these.
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # Status codes after which an attempt is repeated.


class _Interrupted(Exception):
    """The response ended early, or the server is busy; the message says which."""


def download(url: str, unfinished: Path, *, name: str, resume: bool) -> None:
    """Downloads a file; after an interruption, tries again where it ended.

    Args:
        url: An https:// URL, which may only redirect to others, or http:// on this machine.
        unfinished: The file to write. It is kept after an error, to resume from it.
        name: Name of the file in messages.
        resume: Whether to resume from `unfinished` if an earlier call left it. Only a checksum
            tells whether the file has changed since.

    Raises:
        UsageError: The server does not have the file, or it cannot be written.
        RunError: There is no connection, or the download was interrupted too often.
    """
    if not resume:
        unfinished.unlink(missing_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _open(url, unfinished) as response:
                return _receive(response, unfinished)
        except _Interrupted as error:
            if attempt == ATTEMPTS:
                raise RunError(
                    f"The download of {name} failed {ATTEMPTS} times ({error}); run the command "
                    "again later."
                ) from error
            time.sleep(attempt * PAUSE)
        except InvalidSchema as error:
            raise UsageError(f"{url} redirects to an unencrypted address; use another.") from error
        except requests.RequestException as error:
            raise RunError(
                f"{name} cannot be downloaded, because {url} cannot be reached "
                f"({_reason(error)}). Check the network; or download the file on another machine "
                "and give its path as the model."
            ) from error
        except OSError as error:
            raise UsageError(
                f"{unfinished} cannot be written: {error.strerror or error}."
            ) from error


def _reason(error: BaseException) -> str:
    """Returns the cause at the end of a chain of errors, without the names of objects."""
    while error.__context__:
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]


@contextlib.contextmanager
def _open(url: str, unfinished: Path) -> Iterator[requests.Response]:
    """Requests what `unfinished` lacks, and checks the response's status."""
    offset = unfinished.stat().st_size if unfinished.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.Session() as session:
        if url.startswith("https:"):
            session.adapters.pop("http://")  # A redirect must not leave encryption.
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status = f"{response.status_code} {response.reason}"
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                unfinished.unlink()  # It is longer than the file.
                raise _Interrupted(status)
            if response.status_code in TEMPORARY:
                raise _Interrupted(status)
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise UsageError(f"{url} cannot be downloaded: the server answers {status}.")
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise UsageError(
                    f"{url} is a web page, not a file; give the URL of the file itself."
                )
            yield response


def _receive(response: requests.Response, unfinished: Path) -> None:
    """Appends a partial response to the file, or writes a whole one."""
    is_part = response.status_code == requests.codes.partial_content
    length = response.headers.get("Content-Length")
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with (
        unfinished.open("ab" if is_part else "wb") as file,
        progress_bar(*columns, stream=sys.stderr) as progress,
    ):
        start = file.tell()
        total = start + int(length) if length else None
        task = progress.add_task("", total=total, completed=start)
        try:
            for block in response.iter_content(BLOCK):
                file.write(block)
                progress.advance(task, len(block))
        except (ChunkedEncodingError, requests.ConnectionError, requests.Timeout) as error:
            raise _Interrupted(f"it ended after {file.tell() / 1e6:.1f} MB") from error
        if total is not None and file.tell() < total:  # Old versions of urllib3 do not notice.
            raise _Interrupted(f"it ended after {file.tell() / 1e6:.1f} MB")
