"""Routes for one image of the index: its details, the image itself, and its thumbnail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from openmofi.images.look import look
from openmofi.refused import Refused
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.replies import ImageView
from openmofi.serve.requests import Row
from openmofi.serve.served import Now
from openmofi.serve.thumbnail_cache import Side
from openmofi.serve.uploads import refuse_image

router = APIRouter(tags=["images"])

RowInPath = Annotated[Row, Path(description="Row of the index.", examples=[0])]
IfNoneMatch = Annotated[str | None, Header(max_length=1_000)]

_FOREVER = "private, max-age=31536000, immutable"
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}
_IMAGE_HEADERS = {"content-security-policy": "default-src 'none'; sandbox"}


def image_response(kinds: str) -> dict:
    """Returns the OpenAPI description of an answer that is an image."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds.split()}
    return {200: {"content": content, "description": "The image."}}


@router.get("/api/images/{row}", operation_id="image", responses=declared(404))
def image(row: RowInPath, served: Now) -> ImageView:
    """Returns the details of an image."""
    library = served.library
    hit = library.hit(row)
    try:
        seen = look(library.image(row), None)
    except Refusal:  # the labels can still be shown
        seen = Refused("image_missing")
    width, height = (None, None) if isinstance(seen, Refused) else seen.size
    return ImageView(**dict(hit), width=width, height=height)


@router.get(
    "/api/images/{row}/file",
    operation_id="image_file",
    response_class=Response,
    responses=image_response("image/png image/jpeg image/gif image/bmp image/webp image/avif")
    | declared(404, 415),
)
def image_file(row: RowInPath, served: Now) -> Response:
    """Returns the stored image, if its format is one that browsers only show as an image."""
    library = served.library
    data = library.image(library.check_row(row))
    kind = image_type(data)
    if kind is None:
        message = (
            "The stored file is not a PNG, JPEG, WebP, AVIF, GIF or BMP; ask for its thumbnail."
        )
        raise Refusal(415, "not_a_web_picture", message)
    return Response(data, media_type=kind, headers=_IMAGE_HEADERS)


@router.get(
    "/api/images/{row}/thumbnail",
    operation_id="image_thumbnail",
    response_class=Response,
    responses=image_response("image/webp")
    | {304: {"description": "The client has it."}}
    | declared(400, 404, 413),
)
def image_thumbnail(
    row: RowInPath,
    served: Now,
    side: Annotated[Side, Query(description="Longest side in pixels.")] = Side.MEDIUM,
    v: Annotated[str, Query(max_length=64, description="State of the index.")] = "",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Returns a small WebP of the image."""
    library = served.library
    etag = f'"{library.version}-{library.check_row(row)}-{side}"'
    # In another state of the index, this row may be another image.
    lasting = _FOREVER if v == library.version else "private, no-cache"
    headers = {"etag": etag, "cache-control": lasting} | _IMAGE_HEADERS
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    found = served.thumbnails.get(library.place(row), side, lambda: library.image(row))
    if isinstance(found, Refused):
        raise refuse_image(found)
    return Response(found, media_type="image/webp", headers=headers)


def image_type(data: bytes) -> str | None:
    """Returns the media type of an image by its first bytes, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] == b"ftypavif":
        return "image/avif"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
