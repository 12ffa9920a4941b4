"""The command that serves the web UI and its HTTP API.

python -m deepfill_jax.app [--model MODEL]
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence

from deepfill_jax import renamed
from deepfill_jax.app import hosts
from deepfill_jax.errors import UsageError, run_command

PORT = 7860
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # Variables that are set where Linux has a display.


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is interrupted."""
    options = _parse(arguments)
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
    from deepfill_jax.app.folder import temporary_folder
    from deepfill_jax.app.registry import available
    from deepfill_jax.app.service import Service

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
        if not hosts.is_loopback(options.host) and not options.password:
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
            timeout_graceful_shutdown=1,
        )

        class Server(uvicorn.Server):
            async def shutdown(self, sockets=None):
                # uvicorn would log an error for each browser that is still connected.
                logging.getLogger("uvicorn.error").disabled = True
                service.worker.close()
                await super().shutdown(sockets)

        is_local = hosts.is_loopback(options.host)
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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from deepfill_jax.cli import number
    from deepfill_jax.convert import MODEL_HELP

    parser = argparse.ArgumentParser(
        "deepfill app",
        description="Serves a web UI for image inpainting and an HTTP API (/openapi.json). Images "
        "are processed locally and never leave this machine.",
        epilog="The environment variables DEEPFILL_USER and DEEPFILL_PASSWORD are alternatives to "
        "--user and --password that do not appear in process lists.",
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help=f"{MODEL_HELP}; repeat the option to offer several models (default: all bundled "
        "models)",
    )
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
    _add_limits(parser)
    run_command(lambda: renamed.refuse_old_flags(sys.argv if arguments is None else arguments))
    return parser.parse_args(arguments)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    from deepfill_jax.app.work_limits import (
        MAX_ORIGINAL_PIXELS,
        MAX_SECONDS,
        MAX_STORED_BYTES,
    )
    from deepfill_jax.cli import number
    from deepfill_jax.pictures import MAX_PIXELS

    add = parser.add_argument
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
    add(
        "--max-queue",
        type=number(int, 0, 1000),
        default=8,
        metavar="N",
        help="maximum number of waiting requests; others get HTTP 503 (default: %(default)s)",
    )
    add(
        "--max-megapixels",
        type=number(float, 0, 1e6),
        default=MAX_PIXELS / 1e6,
        metavar="N",
        help="maximum size of images (default: %(default)g)",
    )
    add(
        "--max-megabytes",
        type=number(float, 0, 1e6),
        default=100,
        metavar="N",
        help="maximum size of requests (default: %(default)g)",
    )
    add(
        "--max-original-megapixels",
        type=number(float, 0, 1e6),
        default=MAX_ORIGINAL_PIXELS / 1e6,
        metavar="N",
        help="maximum size of images for the strategy original, whose time grows with the square "
        "of the number of pixels (default: %(default)g)",
    )
    add(
        "--max-seconds",
        type=number(float, 0, 1e6),
        default=MAX_SECONDS,
        metavar="N",
        help="maximum time for one image, without waiting (default: %(default)g)",
    )
    add(
        "--max-gigabytes",
        type=number(float, 0, 1e6),
        default=MAX_STORED_BYTES / 1e9,
        metavar="N",
        help="maximum size of all temporary files; uploads beyond it get HTTP 503 (default: "
        "%(default)g)",
    )


if __name__ == "__main__":
    main()
