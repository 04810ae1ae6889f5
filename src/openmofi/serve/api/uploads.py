"""Routes for images that clients upload."""

from __future__ import annotations

from asyncio import wrap_future
from typing import TYPE_CHECKING, Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response

from openmofi.serve.api.images import image_response
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.replies import UploadReply
from openmofi.serve.requests import UploadId
from openmofi.serve.served import Now
from openmofi.serve.uploads import Upload, decode_upload, read_upload

if TYPE_CHECKING:
    pass

router = APIRouter(tags=["uploads"])

_BODY = {"schema": {"type": "string", "format": "binary"}}
_TAKEN = {"content": {"image/*": _BODY, "application/octet-stream": _BODY}, "required": True}


@router.post(
    "/api/uploads",
    operation_id="upload",
    responses=declared(400, 408, 413, 415, 503),
    openapi_extra={"requestBody": _TAKEN},
)
async def upload(request: Request, served: Now) -> UploadReply:
    """Takes an image to search by or to tag; the body is the image's bytes."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0]
    if not kind.strip().lower().startswith(("image/", "application/octet-stream")):
        message = "Send the image itself, as image/* or application/octet-stream."
        raise Refusal(415, "not_a_picture", message)
    encoder = served.encoder
    transform = await wrap_future(encoder.call(lambda model: model.transform))
    async with served.reading:
        data = await read_upload(request)  # limited while it arrives, see guards.BodyCap
        found = await to_thread.run_sync(decode_upload, data, transform, limiter=served.decoding)
        del data
    vector = await wrap_future(encoder.image(found.pixels))
    served.uploads.add(Upload(found.id, found.size, found.thumbnail, vector))
    return UploadReply(
        id=found.id,
        width=found.size[0],
        height=found.size[1],
        thumbnail=f"/api/uploads/{found.id}/thumbnail",
    )


@router.get(
    "/api/uploads/{upload}/thumbnail",
    operation_id="upload_thumbnail",
    response_class=Response,
    responses=image_response("image/webp") | declared(404),
)
def upload_thumbnail(
    upload: Annotated[UploadId, Path(description="Id of the upload.")], served: Now
) -> Response:
    """Returns a small WebP of an uploaded image."""
    return Response(served.uploads.get(upload).thumbnail, media_type="image/webp")
