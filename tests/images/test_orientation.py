import io
import struct

import numpy as np
import pytest
from PIL import Image

from exif import ORIENTATION, SEEN, UPRIGHT, directory, jpeg, segment, short
from openmofi.images.decode import decode_image
from openmofi.images.look import look
from openmofi.images.orientation import exif_orientation

TURNED = (ORIENTATION, 3, 1, short(6))
ODD = {
    "resolution_as_text": (0x011A, 2, 4, b"72\0\0"),
    "fraction_without_denominator": (0x9204, 10, 1, struct.pack("<ll", -1, 0)),
    "text_as_number": (0x010E, 4, 1, b"\xff\xff\xff\xff"),
    "maker_note": (0x927C, 7, 9, b"Canon\0\xff\0\x01"),
    "size_that_lies": (0x829A, 5, 2**31, bytes(8)),
    "place_beyond_the_end": (0x8769, 4, 1, struct.pack("<L", 2**32 - 1)),
    "unknown_type": (0x0131, 99, 3, b"abc"),
    "resolution_of_bytes": (0x011B, 1, 1, b"\x48"),
}


def _same(image, orientation):
    return np.abs(np.asarray(image.convert("L")).astype(int) - SEEN[orientation]).max() <= 3


def _saved(kind, exif):
    buffer, options = io.BytesIO(), {}
    if kind == "WEBP":
        options = {"lossless": True}
    if kind == "AVIF":  # Pillow turns the pixels' frame itself, and puts its own tags into the file
        options, plain = {"quality": 100}, directory(TURNED, (0x0131, 2, 40, bytes(40)))
        Image.fromarray(UPRIGHT).convert("RGB").save(buffer, kind, exif=plain, **options)
        odd = exif.replace(struct.pack("<HHL", *TURNED[:3]), struct.pack("<HHL", 0x0FFF, 3, 1))
        start = buffer.getvalue().index(b"II*\0")
        return buffer.getvalue()[:start] + odd + buffer.getvalue()[start + len(odd) :]
    Image.fromarray(UPRIGHT).convert("RGB").save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("orientation", SEEN)
def test_an_image_is_turned_as_its_tag_says(orientation, mode):
    data = jpeg(directory((ORIENTATION, 3, 1, short(orientation))), mode=mode)
    image, size = decode_image(data)
    assert size == image.size == look(data, None).size == SEEN[orientation].shape[::-1]
    assert _same(image, orientation)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", ODD)
def test_one_odd_tag_costs_nothing(name, kind):
    exif = directory(TURNED, ODD[name])
    data = jpeg(exif, mode="CMYK") if kind == "JPEG" else _saved(kind, exif)
    image, size = decode_image(data)
    assert size == look(data, None).size == (32, 48)
    assert _same(image, 6)


@pytest.mark.parametrize("name", [n for n in ODD if n not in ("size_that_lies", "unknown_type")])
def test_one_odd_tag_of_a_tiff_costs_nothing(name):
    (high, wide), place = UPRIGHT.shape, 8 + 2 + 11 * 12 + 4
    numbers = {0x100: wide, 0x101: high, 0x102: 8, 0x103: 1, 0x106: 1, 0x115: 1, 0x116: high}
    entries = [(tag, 3, 1, short(number)) for tag, number in numbers.items()]
    odd = ODD[name]
    start = place + (len(odd[3]) if len(odd[3]) > 4 else 0)
    entries += [(0x111, 4, 1, struct.pack("<L", start)), TURNED, odd]
    entries += [(0x117, 4, 1, struct.pack("<L", UPRIGHT.size))]
    image, size = decode_image(directory(*sorted(entries)) + UPRIGHT.tobytes())
    assert size == image.size == (32, 48)
    assert _same(image, 6)


@pytest.mark.parametrize(
    ("entry", "right"),
    [
        ((1, 1, b"\x06"), 6),
        ((4, 1, struct.pack("<L", 6)), 6),
        ((9, 1, struct.pack("<l", 8)), 8),
        ((5, 1, struct.pack("<LL", 6, 1)), 6),
        ((5, 1, struct.pack("<LL", 6, 0)), None),
        ((11, 1, struct.pack("<f", float("nan"))), None),
        ((2, 2, b"6\0"), None),
        ((3, 2, short(6) + short(1)), None),
        ((3, 0, short(6)), None),
        ((3, 1, short(0)), None),
        ((3, 1, short(9)), None),
        ((3, 1, short(65535)), None),
    ],
)
def test_one_number_from_1_to_8_is_an_orientation(entry, right):
    assert exif_orientation(directory((ORIENTATION, *entry))) == right


@pytest.mark.parametrize(
    ("block", "right"),
    [
        (directory((ORIENTATION, 3, 1, short(6, ">")), order=">"), 6),
        (b"Exif\0\0" + directory(TURNED), 6),
        (directory(TURNED, ODD["resolution_as_text"])[:24], 6),
        (directory(TURNED)[:15], None),
        (directory(TURNED, at=5_000), None),
        (b"", None),
        (b"XX" + directory(TURNED)[2:], None),
        (struct.pack("<2sHHHQQHHQ8s", b"II", 43, 8, 0, 16, 1, ORIENTATION, 3, 1, b"\6"), 6),
    ],
    ids=["big_endian", "prefix", "cut", "cut_inside", "away", "empty", "no_tiff", "big_tiff"],
)
def test_a_block_counts_as_far_as_it_can_be_read(block, right):
    assert exif_orientation(block) == right


def test_the_directory_of_further_images_costs_nothing():
    mpf = segment(0xE2, b"MPF\0" + directory((0xB001, 2, 1, b"x"), (0xB002, 5, 1, bytes(8))))
    for mode in ("RGB", "CMYK"):
        image, _ = decode_image(jpeg(directory(TURNED), mode=mode, more=mpf))
        assert _same(image, 6)


@pytest.mark.parametrize(
    "exif", [None, directory((ORIENTATION, 3, 1, short(3)))], ids=["alone", "beside_exif"]
)
def test_xmp_turns_where_exif_says_nothing(exif):
    packet = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    image, _ = decode_image(jpeg(exif, more=segment(0xE1, packet)))
    assert _same(image, 6 if exif is None else 3)
