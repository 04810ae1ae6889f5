"""Routes for the map: all images as points."""

from __future__ import annotations

from fastapi import APIRouter, Response

from openmofi.serve.api.images import IfNoneMatch
from openmofi.serve.points import MapPoints
from openmofi.serve.refusal import declared
from openmofi.serve.replies import MapClass, MapInfo
from openmofi.serve.served import Now

router = APIRouter(tags=["map"])

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.get("/api/map", operation_id="map", responses=declared(404))
def map_info(served: Now) -> MapInfo:
    """Returns the number of points, and the entities that their classes stand for."""
    library = served.library
    found = library.once(MapPoints)
    classes = [MapClass(id=e, label=library.label(e), count=n) for e, n in found.classes]
    return MapInfo(points=found.count, classes=classes)


@router.get(
    "/api/map/points",
    operation_id="map_points",
    response_class=Response,
    responses={200: {"content": _BYTES}, 304: {"description": "The client has them."}}
    | declared(404),
)
def map_points(served: Now, if_none_match: IfNoneMatch = None) -> Response:
    """Returns uint32 row[n], uint16 x, y [2n] and uint8 class[n], little-endian."""
    library = served.library
    headers = {"etag": f'"{library.version}-points"', "cache-control": "private, no-cache"}
    data = library.once(MapPoints).data
    if if_none_match == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/octet-stream", headers=headers)
