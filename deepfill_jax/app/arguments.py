"""Options of the command that serves the web UI."""

import argparse
import os

from deepfill_jax.app import hosts
from deepfill_jax.app.work_limits import MAX_ORIGINAL_PIXELS, MAX_SECONDS, MAX_STORED_BYTES
from deepfill_jax.cli import number
from deepfill_jax.pictures import MAX_PIXELS

PORT = 7860
MAX_REQUEST_MEGABYTES = 100
# The limits that are numbers: option, default, meaning.
LIMITS = (
    ("megapixels", MAX_PIXELS / 1e6, "maximum size of images"),
    ("megabytes", MAX_REQUEST_MEGABYTES, "maximum size of requests"),
    (
        "original-megapixels",
        MAX_ORIGINAL_PIXELS / 1e6,
        "maximum size of images for the strategy original, whose time grows with the square of the "
        "number of pixels",
    ),
    ("seconds", MAX_SECONDS, "maximum time for one image, without waiting"),
    (
        "gigabytes",
        MAX_STORED_BYTES / 1e9,
        "maximum size of all temporary files; uploads beyond it get HTTP 503",
    ),
)


def add_access(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where the server listens and who may use it."""
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, reachable from this machine only)",
    )
    add(
        "--port",
        type=number(int, 0, 65535),
        default=PORT,
        help="port to listen on; 0 chooses a free port (default: %(default)s)",
    )
    add(
        "--no-browser",
        action="store_true",
        help="do not open a browser; without this option, one is opened if this machine has a "
        "display and --host is this machine only",
    )
    add(
        "--user",
        default=os.environ.get("DEEPFILL_USER", "deepfill"),
        help="user name for --password (default: %(default)s)",
    )
    add(
        "--password",
        default=os.environ.get("DEEPFILL_PASSWORD"),
        help="require this password and the user name (HTTP Basic authentication)",
    )
    add(
        "--allow-host",
        type=hosts.host_pattern,
        action="append",
        default=[],
        metavar="NAME",
        help="name under which a proxy publishes this server, or .DOMAIN for all names below a "
        "domain; repeat the option for several names",
    )
    add(
        "--root-path",
        type=hosts.root_path,
        default="",
        metavar="PATH",
        help="path below which a proxy publishes this server, such as /deepfill",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds the options that limit the work and the files of the server."""
    parser.add_argument(
        "--max-queue",
        type=number(int, 0, 1000),
        default=8,
        metavar="N",
        help="maximum number of waiting requests; others get HTTP 503 (default: %(default)s)",
    )
    for name, default, meaning in LIMITS:
        parser.add_argument(
            f"--max-{name}",
            type=number(float, 0, 1e6),
            default=default,
            metavar="N",
            help=f"{meaning} (default: %(default)g)",
        )
