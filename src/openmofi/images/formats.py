"""Tells by a file's name whether it is an image, and whether it can be read here.

Readable is what Pillow reads, so that a new version needs no change here; HEIC needs the extra
`heif`. Other images are refused with a reason.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import PurePath

from PIL import Image

# Measurements and films, of which Pillow reads the header only.
_NO_IMAGES = {"BUFR", "GRIB", "HDF5", "MPEG", "IPTC"}
# Vector graphics, which Pillow can at best have other programs draw.
_DRAWINGS = {"EPS", "WMF"}
_HEIF = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
_OTHERS = (
    *(".avif", ".avifs", ".jxl", ".jxr", ".wdp", ".hdp", ".exr", ".hdr", ".djvu"),
    *(".svg", ".svgz", ".ai", ".xcf", ".psb"),
)
_RAW = (
    *(".dng", ".raw", ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".erf", ".fff", ".gpr"),
    *(".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf"),
    *(".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """Returns the formats that are read, as Pillow names them, the most common ones first."""
    if has_heif():
        import pillow_heif  # pyrefly: ignore[missing-import]

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NO_IMAGES | _DRAWINGS)


@lru_cache(maxsize=1)
def readable_suffixes() -> frozenset[str]:
    """Returns the suffixes of images that are read, such as .jpg."""
    known = formats()
    return frozenset(s for s, name in Image.registered_extensions().items() if name in known)


@lru_cache(maxsize=1)
def unread_suffixes() -> frozenset[str]:
    """Returns the suffixes of images that are not read here."""
    known = Image.registered_extensions().items()
    drawings = {suffix for suffix, name in known if name in _DRAWINGS}
    return (_HEIF | {*_OTHERS, *_RAW} | drawings) - readable_suffixes()


def has_heif() -> bool:
    """Returns whether the extra `heif` is installed."""
    return find_spec("pillow_heif") is not None


def is_image(name: str) -> bool:
    """Returns whether a file's name is that of an image, readable here or not."""
    suffix = PurePath(name).suffix.lower()
    return suffix in readable_suffixes() or suffix in unread_suffixes()


def unread_reason(name: str) -> str:
    """Returns why an image with this name is not read, or ""."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in unread_suffixes():
        return ""
    return "needs_extra_heif" if suffix in _HEIF else "unsupported_image"
