import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from openmofi.images.decode import decode_image, read_image, to_rgb

HALVES = np.repeat([[20_000, 45_000]], 4, 0).repeat(8, 1)
"""Two grey levels of 16 bits, left and right; of 255 they are 78 and 175."""


def _encoded(values, kind, **options):
    buffer = io.BytesIO()
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pgm(white, *values):
    return b"P5 2 1 %d\n" % white + struct.pack(">2H", *values)


def _pfm(*values):
    return b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", *values)


def _tiff(form, bits, kind, *values, photometric=1):
    data = struct.pack("<2" + form, *values)
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 128, 277: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHLL", t, 3, 1, v) for t, v in [*tags.items(), (339, kind)])
    head = b"II*\0\x08\0\0\0\x09\0" + entries + bytes(4)
    return head.ljust(tags[273], b"\0") + data


FILES = {
    "png_16": (_encoded(HALVES.astype(np.uint16), "PNG"), 78, 175),
    "png_16_with_a_hole": (
        _encoded(HALVES.astype(np.uint16), "PNG", transparency=20_000),
        255,
        175,
    ),
    "tiff_16": (_encoded(HALVES.astype(np.uint16), "TIFF"), 78, 175),
    "tiff_16_lzw": (_encoded(HALVES.astype(np.uint16), "TIFF", compression="tiff_lzw"), 78, 175),
    "tiff_16_of_32": (_encoded(HALVES.astype(np.int32), "TIFF"), 78, 175),
    "tiff_8_of_32": (_encoded((HALVES // 257).astype(np.int32), "TIFF"), 77, 175),
    "tiff_32": (_encoded((HALVES << 15).astype(np.int32), "TIFF"), 78, 175),
    "tiff_below_zero": (_encoded((HALVES - 30_000).astype(np.int32), "TIFF"), 0, 255),
    "tiff_fractions": (_encoded((HALVES / 65_535).astype(np.float32), "TIFF"), 78, 175),
    "tiff_floats_of_255": (_encoded((HALVES / 257).astype(np.float32), "TIFF"), 78, 175),
    "tiff_floats_of_any_range": (_encoded(HALVES.astype(np.float32), "TIFF"), 0, 255),
    "pgm_16": (_pgm(65_535, 20_000, 45_000), 78, 175),
    "pgm_dark": (_pgm(65_535, 0, 257), 0, 1),
    "pgm_12": (_pgm(4_095, 1_250, 2_812), 78, 175),
    "pfm": (_pfm(0.25, 0.75), 64, 191),
    "pfm_beyond_white": (_pfm(0.0, 3.0), 0, 255),
    "pfm_no_number": (_pfm(float("nan"), float("inf")), 0, 255),
}
IMAGES = {
    "1": ("1", 1, (255, 255, 255)),
    "I;16": ("I;16", 45_000, (175, 175, 175)),
    "I;16L": ("I;16L", 45_000, (175, 175, 175)),
    "I;16B": ("I;16B", 45_000, (175, 175, 175)),
    "I": ("I", 45_000, (175, 175, 175)),
    "F": ("F", 0.5, (128, 128, 128)),
    "LA": ("LA", (10, 0), (255, 255, 255)),
    "La": ("La", (10, 255), (10, 10, 10)),
    "PA": ("PA", (0, 0), (255, 255, 255)),
    "RGBa": ("RGBa", (9, 8, 7, 255), (9, 8, 7)),
    "RGBX": ("RGBX", (9, 8, 7, 0), (9, 8, 7)),
    "CMYK": ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    "YCbCr": ("YCbCr", (76, 85, 255), (254, 0, 0)),
    "HSV": ("HSV", (0, 255, 255), (255, 0, 0)),
    "LAB": ("LAB", (255, 128, 128), (255, 255, 255)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_s_levels_become_eight_bits(name):
    data, left, right = FILES[name]
    image, size = decode_image(data)
    assert (image.mode, image.size) == ("RGB", size)
    assert image.getpixel((0, 0)) == (left,) * 3
    assert image.getpixel((size[0] - 1, 0)) == (right,) * 3


@pytest.mark.parametrize("name", IMAGES)
def test_every_mode_has_its_colours(name):
    mode, value, right = IMAGES[name]
    found = to_rgb(Image.new(mode, (2, 2), value)).getpixel((1, 1))
    assert np.abs(np.subtract(found, right)).max() <= 1


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4", "<f4"])
def test_an_array_s_levels_become_eight_bits(kind):
    values = HALVES / 65_535 if kind == "<f4" else HALVES
    image = read_image(values.astype(kind))
    assert (image.getpixel((0, 0))[0], image.getpixel((15, 3))[0]) == (78, 175)


@pytest.mark.parametrize(
    ("form", "bits", "kind", "photometric", "right"),
    [
        ("H", 16, 1, 1, (78, 175)),
        ("H", 16, 1, 0, (177, 80)),
        ("h", 16, 2, 1, (156, 255)),
        ("L", 32, 1, 1, (78, 175)),
    ],
)
def test_a_tiff_says_what_is_white(form, bits, kind, photometric, right):
    values = (20_000, 32_767 if form == "h" else 45_000)
    values = [v << 16 if form == "L" else v for v in values]
    data = _tiff(form, bits, kind, *values, photometric=photometric)
    image, _ = decode_image(data)
    assert (image.getpixel((0, 0))[0], image.getpixel((1, 0))[0]) == right


def _png(bits, colours, row, hole):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colours, 0, 0, 0))
    rest = chunk(b"tRNS", hole), chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(rest)


@pytest.mark.parametrize(
    ("bits", "colours", "row", "hole"),
    [
        (1, 0, b"\x40", b"\0\0"),
        (2, 0, b"\x70", b"\0\1"),
        (4, 0, b"\x3c", b"\0\3"),
        (8, 2, bytes([1, 2, 3, 90, 90, 90]), bytes([0, 1, 0, 2, 0, 3])),
        (
            16,
            2,
            struct.pack(">6H", 1000, 2000, 3000, 9, 9, 9),
            struct.pack(">3H", 1000, 2000, 3000),
        ),
    ],
    ids=["grey_1", "grey_2", "grey_4", "rgb_8", "rgb_16"],
)
def test_a_png_s_transparent_colour_is_laid_on_white(bits, colours, row, hole):
    image, _ = decode_image(_png(bits, colours, row, hole))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_is_laid_on_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    found, _ = decode_image(_encoded(image, "PNG", transparency=0))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]
