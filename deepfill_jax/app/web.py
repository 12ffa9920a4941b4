"""The ASGI application: web UI, API and guard."""

from collections.abc import Collection
from pathlib import Path

import gradio as gr

from deepfill_jax.app.api import make_api
from deepfill_jax.app.guard import MAX_BYTES, Guard, Login
from deepfill_jax.app.layout import theme
from deepfill_jax.app.page import make_page
from deepfill_jax.app.service import Service


def make_app(
    service: Service,
    folder: Path,
    *,
    login: Login | None = None,
    hosts: Collection[str] = (),
    proxies: Collection[str] = (),
    root_path: str = "",
    max_bytes: int = MAX_BYTES,
) -> Guard:
    """Makes the application, which keeps its temporary files in a folder; see `Guard`."""
    app = gr.mount_gradio_app(
        make_api(service, login=login is not None, root_path=root_path),
        make_page(service, folder),
        path="/",
        root_path=root_path or None,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=max_bytes,
        theme=theme(),
        css=Path(__file__).with_name("style.css").read_text(encoding="utf-8"),
    )
    return Guard(
        app,
        service,
        login=login,
        hosts=hosts,
        proxies=proxies,
        root_path=root_path,
        max_bytes=max_bytes,
    )
