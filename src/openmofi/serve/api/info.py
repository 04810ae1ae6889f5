"""Routes for the server's state: what it serves, its health and its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

import openmofi
from openmofi.serve.replies import Abilities, Health, Info
from openmofi.serve.served import Now

router = APIRouter(tags=["server"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", operation_id="health")
async def health() -> Health:
    """Returns that the server is running; needs no token."""
    return Health()


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(served: Now) -> Response:
    """Returns counts and times in Prometheus's text format."""
    return Response(served.metrics.page(), media_type="text/plain; version=0.0.4")


@router.get("/api/info", operation_id="info")
def info(served: Now) -> Info:
    """Returns what is served and what the server can do."""
    library = served.library
    meta, encodes = library.index.meta, library.searcher.has_encoder
    return Info(
        name=library.index.folder.resolve().name,
        images=len(library.index),
        entities=len(library.own),
        dim=meta["dim"],
        model=meta["model"],
        kb=str(library.kb.path) if library.kb else "",
        selection=meta["selection"],
        has=Abilities(
            text=library.searcher.reads_texts,
            upload=encodes,
            entities=library.kb is not None,
            provenance=served.has_data,
            map=bool(meta["map"]),
            data=served.has_data,
            evaluation=bool(served.reports),
        ),
        max_upload_bytes=served.settings.max_upload_bytes,
        generation=library.index.generation,
        version=openmofi.__version__,
    )
