"""Runs the application with uvicorn on one address until it is stopped."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from openmofi.config import ServeSettings
from openmofi.errors import InputError
from openmofi.serve.app import LOOPBACK_HOSTS, make_app


def serve(
    index: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    settings: ServeSettings | None = None,
    **given: Any,
) -> None:
    """Serves an index until SIGTERM or Ctrl-C; requests in progress are finished first.

    Args:
        index: directory of the index.
        host: address to listen on.
        port: port to listen on; 0: any free one.
        token: required from every client; needed on an address that others can reach.
        settings: see `config.ServeSettings`.
        given: model, kb, data and reports, see `make_app`.

    Raises:
        InputError: the address is taken or invalid, or others can reach it and there is no token.
    """
    settings = settings or ServeSettings()
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        is_loopback = False
    if not token and not is_loopback:
        raise InputError(
            f"--host {host} can be reached by others; pass --token WORD too, or serve on 127.0.0.1."
        )
    # Without a token, the server only answers to these names; with one, the token is enough.
    hosts = () if token else {*LOOPBACK_HOSTS, _in_url(host)}
    # Pillow only warns at 89 million pixels; threads would undo each other's warning filters.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    app = make_app(index, token=token, hosts=hosts, settings=settings, **given)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,  # longer than clients keep idle connections
        timeout_graceful_shutdown=max(1, round(settings.shutdown)),
    )
    with _listening(host, port) as listener:
        address = f"http://{_in_url(host)}:{listener.getsockname()[1]}/"
        _Server(config, f"serving {index} at {address} (stop with Ctrl-C)").run(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn that says when it is ready, and that exits normally when stopped by a signal."""

    def __init__(self, config: uvicorn.Config, ready: str):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to answer requests."""
        await super().startup(sockets)
        print(self._ready, file=sys.stderr, flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops gracefully at a signal; unlike uvicorn, does not raise it again afterwards."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listening(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    Raises:
        InputError: it is impossible to listen there.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"There is no port {port}; choose another --port, or 0 for any.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        raise InputError(
            f"Cannot listen on {host}:{port} ({why}); choose another --port, or 0 for any."
        ) from None
