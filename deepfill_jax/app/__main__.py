"""The command that serves the page and its HTTP API.

python -m deepfill_jax.app [--model NAME|FILE]
"""

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import renamed
from deepfill_jax.errors import UsageError, run_command

PORT = 7860
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CLIENTS = 500  # Connections at a time.


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is interrupted."""
    options = _parse(arguments)
    # An exit that cleans up.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run_command(lambda: run(options))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


def run(options: argparse.Namespace) -> None:
    """Loads the models, and serves.

    Raises:
        UsageError: gradio is not installed, a model cannot be loaded, or the port cannot be had.
    """
    try:
        import gradio  # noqa: F401
        import python_multipart  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"The page needs {error.name}: pip install 'deepfill_jax[app]'."
        ) from error
    # Here, and not above: gradio and JAX take seconds.
    import uvicorn

    from deepfill_jax import compile_cache
    from deepfill_jax.app.guard import Login
    from deepfill_jax.app.registry import available
    from deepfill_jax.app.service import Service
    from deepfill_jax.app.web import make_app

    listening = _listen(options.host, options.port)
    compile_cache.cache_on_disk()
    service = Service(
        available(options.model),
        max_pixels=int(1e6 * options.max_megapixels),
        waiting=options.max_queue,
    )
    with listening, tempfile.TemporaryDirectory(prefix="deepfill_") as folder:
        app = make_app(
            service,
            Path(folder).resolve(),
            login=Login(options.user, options.password) if options.password else None,
            hosts=LOOPBACK if options.host in LOOPBACK else (),
            max_bytes=int(1e6 * options.max_megabytes),
        )
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{host}:{listening.getsockname()[1]}/", flush=True)
        if options.host not in LOOPBACK and not options.password:
            print("Whoever reaches this machine can use it: there is no password.", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            limit_concurrency=_CLIENTS,
            timeout_graceful_shutdown=1,
        )

        class Server(uvicorn.Server):
            async def shutdown(self, sockets=None):
                # Of browsers that are still there it would say much.
                logging.getLogger("uvicorn.error").disabled = True
                await super().shutdown(sockets)

        Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} cannot be had: {error.strerror}; choose another by --port, or "
            "0 for one that is free."
        ) from error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from deepfill_jax.cli import number
    from deepfill_jax.pictures import MAX_PIXELS

    parser = argparse.ArgumentParser(
        "python -m deepfill_jax.app",
        description="Serves a page that fills holes in pictures, and an HTTP API that does the "
        "same (/openapi.json). Nothing that it is given leaves this machine.",
        epilog="DEEPFILL_USER and DEEPFILL_PASSWORD in the environment do the same as --user and "
        "--password, and no list of processes shows them.",
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="model file (.safetensors), or a name; may be given again, for more to choose from; "
        "without it, all that come with the package",
    )
    add("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine's)")
    add("--port", type=number(int, 0, 65535), default=PORT, help="%(default)s; 0: any that is free")
    add("--user", default=os.environ.get("DEEPFILL_USER", "deepfill"), help="(%(default)s)")
    add(
        "--password",
        default=os.environ.get("DEEPFILL_PASSWORD"),
        help="ask for it, and for the user's name",
    )
    add(
        "--max-queue",
        type=number(int, 0, 1000),
        default=8,
        metavar="N",
        help="pictures that may wait while one is filled (%(default)s)",
    )
    add(
        "--max-megapixels",
        type=number(float, 0, 1e6),
        default=MAX_PIXELS / 1e6,
        metavar="N",
        help="refuse larger pictures (%(default)g)",
    )
    add(
        "--max-megabytes",
        type=number(float, 0, 1e6),
        default=100,
        metavar="N",
        help="refuse larger requests (%(default)g)",
    )
    run_command(lambda: renamed.refuse_old_flags(sys.argv if arguments is None else arguments))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
