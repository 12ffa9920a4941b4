"""The command that serves the web UI and its HTTP API.

python -m deepfill_jax.app [--model MODEL]
"""

import argparse
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepfill_jax import renamed
from deepfill_jax.app import arguments, hosts
from deepfill_jax.errors import UsageError, run_command

if TYPE_CHECKING:
    from deepfill_jax.app.service import Service

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # Variables that are set where Linux has a display.


def main(given: Sequence[str] | None = None) -> None:
    """Serves until it is interrupted."""
    options = _parse(given)
    # Turns SIGTERM into an exit that runs the clean-up handlers.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run_command(lambda: run(options))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


def run(options: argparse.Namespace) -> None:
    """Loads the models, starts the server and opens it in a browser.

    Raises:
        UsageError: gradio is not installed, a model cannot be loaded, or the port is not available.
    """
    # Notes go to stderr; stdout has the address alone, for programs that start this command.
    print("Starting, which takes some seconds. Press Ctrl+C to stop.", file=sys.stderr, flush=True)
    _check_installation()
    # These imports are not at the top because gradio and JAX take seconds to import.
    import jax

    from deepfill_jax.app.folder import temporary_folder
    from deepfill_jax.app.registry import available
    from deepfill_jax.app.service import Service

    # The worker runs the networks; this process must not reserve the memory of a GPU.
    jax.config.update("jax_platforms", "cpu")
    listening = _listen(options.host, options.port)
    service = Service(
        available(options.model),
        max_pixels=int(1e6 * options.max_megapixels),
        max_original_pixels=int(1e6 * options.max_original_megapixels),
        max_seconds=options.max_seconds,
        max_stored_bytes=int(1e9 * options.max_gigabytes),
        waiting=options.max_queue,
    )
    with listening, contextlib.closing(service.worker), temporary_folder() as folder:
        service.worker.start()  # It imports JAX while this process imports gradio.
        _serve(options, service, listening, folder)


def _serve(
    options: argparse.Namespace, service: "Service", listening: socket.socket, folder: Path
) -> None:
    import uvicorn

    from deepfill_jax.app.guard import Login
    from deepfill_jax.app.protocol import Protocol
    from deepfill_jax.app.web import make_app

    app = make_app(
        service,
        folder,
        login=Login(options.user, options.password) if options.password else None,
        hosts=hosts.allowed(options.host, options.allow_host),
        proxies=options.allow_host,
        root_path=options.root_path,
        max_bytes=int(1e6 * options.max_megabytes),
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listening.getsockname()[1]}/"
    print(address, flush=True)
    is_local = hosts.is_loopback(options.host)
    if not is_local and not options.password:
        print(
            "Warning: no password is set, so anyone who can reach this machine can use it.",
            file=sys.stderr,
            flush=True,
        )
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        http=Protocol,
        ws="none",  # The web UI does not use WebSockets.
        timeout_graceful_shutdown=0,  # Open pages keep a connection until they are closed.
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # uvicorn would log an error for each browser that is still connected.
            logging.getLogger("uvicorn.error").disabled = True
            service.worker.close()
            await super().shutdown(sockets)
            # Without garbage collections, the interpreter ends in a tenth of a second.
            gc.freeze()

    if is_local and not options.no_browser and _has_display():
        # In a thread, because some browsers return only when they are closed. The socket is
        # listening, so the browser's first request waits until the server takes it.
        threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    Server(config).run(sockets=[listening])


def _check_installation() -> None:
    for name in ("gradio", "python_multipart"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"The web UI needs {name}: pip install 'deepfill_jax[app]'.")


def _has_display() -> bool:
    """Whether a browser can open a window; without one, Linux would start one in the terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, DISPLAYS))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} is not available: {error.strerror}; choose another with "
            "--port, or 0 for any free port."
        ) from error


def _parse(given: Sequence[str] | None) -> argparse.Namespace:
    from deepfill_jax.convert import MODEL_HELP

    parser = argparse.ArgumentParser(
        "deepfill app",
        description="Serves a web UI for image inpainting and an HTTP API (/openapi.json). Images "
        "are processed locally and never leave this machine.",
        epilog="The environment variables DEEPFILL_USER and DEEPFILL_PASSWORD are alternatives to "
        "--user and --password that do not appear in process lists.",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help=f"{MODEL_HELP}, or a classical method: telea, navier_stokes, "
        "patchmatch, biharmonic; repeat the option to offer several models (default: all bundled "
        "models)",
    )
    arguments.add_access(parser)
    arguments.add_limits(parser)
    run_command(lambda: renamed.refuse_old_flags(sys.argv if given is None else given))
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
