"""The web application: an index -> a FastAPI app with the REST interface and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

import openmofi
from openmofi.config import ServeSettings
from openmofi.search import Index
from openmofi.serve.api import (
    data,
    entities,
    images,
    info,
    map,
    missing,
    page,
    provenance,
    review,
    search,
    tag,
    uploads,
)
from openmofi.serve.guards import BodyCap, Gate, SafeHeaders
from openmofi.serve.metrics import RequestMeter
from openmofi.serve.refusal import add_handlers, declared
from openmofi.serve.served import Served

LOOPBACK_HOSTS = ("127.0.0.1", "localhost")
_ROUTERS = (
    *(info, search, uploads, tag, entities, provenance, images, map, data, review, missing, page),
)


def make_app(
    index: Path | str | Index,
    *,
    model: Path | str | None = None,
    kb: Path | str | None = None,
    data: Path | str | None = None,
    reports: Sequence[Path | str] = (),
    token: str | None = None,
    hosts: Collection[str] = LOOPBACK_HOSTS,
    settings: ServeSettings | None = None,
) -> FastAPI:
    """Returns the application.

    Args:
        index: an index or its directory.
        model: the encoder; the default is the one the index was made with.
        kb: knowledge base with the names of entities; the default is the index's.
        data: a selection (i2e/select/NAME); the default is the index's.
        reports: reports of evaluations, as report.html or its directory.
        token: required from every client; None: no token is needed.
        hosts: host names that the server answers to; empty: any.
        settings: see `config.ServeSettings`.

    Raises:
        InputError: the index, the selection or a report is missing.
    """
    settings = settings or ServeSettings()
    opened = index if isinstance(index, Index) else Index.open(index)
    served = Served(opened, settings, model=model, kb=kb, data=data, reports=reports, token=token)
    app = FastAPI(
        title="OpenMOFI",
        version=openmofi.__version__,
        summary="Search, tag and look.",
        docs_url=None,  # these pages would load scripts from another host
        redoc_url=None,
        lifespan=_lifespan,
        responses=declared(401, 403, 413, 422),
        dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [],  # for OpenAPI
    )
    app.state.served = served
    add_handlers(app)
    for part in _ROUTERS:
        app.include_router(part.router)
    app.add_middleware(BodyCap, max_upload_bytes=settings.max_upload_bytes)
    app.add_middleware(Gate, hosts=hosts, token=token)
    app.add_middleware(RequestMeter, metrics=served.metrics)
    app.add_middleware(SafeHeaders)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    served: Served = app.state.served
    # Python runs one thread at a time; with the default of forty, each waits long for its turn.
    to_thread.current_default_thread_limiter().total_tokens = served.settings.workers
    served.start()
    yield
    served.stop()
