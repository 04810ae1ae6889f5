import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from openmofi.images.decode import decode_image, refuse
from openmofi.images.jpeg import plain_jpeg


def _encoded(mode="RGB", size=(150, 97), **options):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3))
    image = Image.fromarray(pixels.astype(np.uint8)).resize(size).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _with_orientation(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    return _encoded(exif=exif)


PLAIN = {
    "baseline": _encoded(),
    "progressive": _encoded(progressive=True),
    "full_chroma": _encoded(subsampling=0),
    "grey": _encoded("L"),
    "profile": _encoded(icc_profile=b"x" * 300),
    "comment": _encoded(comment=b"x" * 300),
    "exif": _with_orientation(1),
}
OTHER = {"cmyk": _encoded("CMYK"), "text": b"\xff\xd8\xff text"}


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_jpeg_has_the_pixels_that_pillow_gives(name, scale):
    image = Image.open(io.BytesIO(PLAIN[name]))
    image.draft(None, (image.width // scale, image.height // scale))
    plain = plain_jpeg(PLAIN[name])
    assert (plain.width, plain.height, plain.mode) == (150, 97, image.mode)
    decoded = plain.decode(PLAIN[name], scale=plain.scale_for(97 // scale))
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize("name", OTHER)
def test_anything_else_is_left_to_pillow(name):
    assert plain_jpeg(OTHER[name]) is None


def test_a_bomb_is_left_to_pillow():
    data = bytearray(PLAIN["baseline"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert plain_jpeg(bytes(data)) is None


@given(st.sampled_from(sorted(PLAIN)), st.integers(0, 2000), st.binary(max_size=9))
def test_damage_is_an_error_and_never_a_crash(name, at, patch):
    data = PLAIN[name][:at] + patch + PLAIN[name][at + 40 :]
    try:
        image, size = decode_image(data, 32)
    except Exception as error:
        reason, image, size = refuse(error).reason, None, (1, 1)
    else:
        reason = ""
    assert reason in ("", "corrupt_image")
    assert reason or image.mode == "RGB"
    assert min(size) > 0


@given(st.integers(4, 900))
def test_half_a_file_is_an_error(length):
    with pytest.raises(OSError, match=r"."):
        decode_image(PLAIN["baseline"][:length])
