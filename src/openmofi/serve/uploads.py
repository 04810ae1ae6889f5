"""Uploaded images: bytes -> a vector and a thumbnail, remembered for a while.

The bytes themselves are dropped, so that a thousand uploads take a few dozen MB; the id is the
first half of their SHA-256, so that the same image has the same id.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anyio import fail_after
from fastapi import Request
from starlette.requests import ClientDisconnect

from openmofi.images.look import decode_bytes
from openmofi.refused import Refused
from openmofi.serve.refusal import Refusal
from openmofi.serve.thumbnail_cache import Side, make_thumbnail

if TYPE_CHECKING:
    from openmofi.model.transform import Transform

READ_AT_ONCE = 8
"""Number of uploads held in memory at once; the others wait, unread."""
_READ_SECONDS = 60.0
"""Time limit for one upload, so that slow ones do not block the others forever."""

REASONS = {
    "corrupt_image": (400, "The image cannot be decoded; send a JPEG, PNG, WebP, GIF or AVIF."),
    "needs_extra_heif": (400, "The server does not read HEIC; send a JPEG, PNG, WebP or AVIF."),
    "image_too_narrow": (400, "The image is more than 200 times as long as wide."),
    "image_too_large": (413, "The image has more pixels than any genuine one (89 million)."),
    "image_missing": (404, "The image file is missing."),
    "no_image": (404, "There is a caption, but no image."),
}
"""Status and sentence for each reason for which an image is refused."""


@dataclass(frozen=True)
class Upload:
    """What is kept of an uploaded image."""

    id: str
    size: tuple[int, int]
    thumbnail: bytes
    """WebP."""
    vector: np.ndarray


@dataclass(frozen=True)
class DecodedUpload:
    """An image before it is encoded."""

    id: str
    size: tuple[int, int]
    thumbnail: bytes
    """WebP."""
    pixels: np.ndarray
    """Pixels as the model takes them."""


async def read_upload(request: Request) -> bytes:
    """Returns the body; unlike with `Request.body`, the request does not keep it.

    Raises:
        Refusal: it takes too long, or is cut off.
    """
    try:
        with fail_after(_READ_SECONDS):
            return b"".join([chunk async for chunk in request.stream()])
    except TimeoutError:
        message = f"The image did not arrive within {_READ_SECONDS:g} seconds; send it again."
        raise Refusal(408, "upload_too_slow", message) from None
    except ClientDisconnect:  # nobody reads the answer
        raise Refusal(400, "upload_cut_off", "The upload was cut off.") from None


def decode_upload(data: bytes, transform: Transform) -> DecodedUpload:
    """Decodes an image.

    Raises:
        Refusal: it is not an image, or too large.
    """
    made = make_thumbnail(data, Side.MEDIUM)
    if isinstance(made, Refused):
        raise refuse_image(made)
    pixels = decode_bytes(data, transform)
    if isinstance(pixels, Refused):
        raise refuse_image(pixels)
    thumbnail, size = made
    return DecodedUpload(hashlib.sha256(data).hexdigest()[:32], size, thumbnail, pixels)


def refuse_image(refused: Refused) -> Refusal:
    """Returns the answer for an image that `openmofi.images.look` refused."""
    reason = refused.reason
    status, message = REASONS.get(reason, REASONS["corrupt_image"])
    # The set of codes is closed; an unforeseen error is named in the sentence.
    known = reason if reason in REASONS else "corrupt_image"
    return Refusal(status, known, message if reason in REASONS else f"{message} ({reason})")


class Uploads:
    """The most recent uploads, in memory."""

    def __init__(self, *, kept: int):
        self._kept = kept
        self._found: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, upload: Upload) -> None:
        """Keeps an upload; drops the oldest if there are too many."""
        with self._lock:
            self._found[upload.id] = upload
            self._found.move_to_end(upload.id)
            while len(self._found) > self._kept:
                self._found.popitem(last=False)

    def get(self, identifier: str) -> Upload:
        """Returns an upload.

        Raises:
            Refusal: the server no longer has it.
        """
        with self._lock:
            if identifier in self._found:
                self._found.move_to_end(identifier)
                return self._found[identifier]
        raise Refusal(404, "upload_gone", "The server no longer has that image; send it again.")

    def clear(self) -> None:
        """Drops all uploads, for example when another model is served."""
        with self._lock:
            self._found.clear()
