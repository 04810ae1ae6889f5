import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import jpeg
from openmofi.images.decode import decode_image, read_image
from openmofi.model.transform import Transform, from_processor_config, to_processor_config


def _noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (224, 224), (50, 700)])
def test_mofi_resizing_is_bilinear_on_the_float_tensor(size):
    image = _noise(*size)
    got = Transform(224, resize="mofi", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))([image])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None] / 255
    short, long = min(size), max(size)
    target = [224, int(224 * long / short)]
    height, width = target if size[0] > size[1] else target[::-1]
    full = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear")
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    assert torch.equal(got, full[:, :, top : top + 224, left : left + 224])


def test_pillow_resizing_equals_hugging_face_clip():
    from transformers import CLIPImageProcessor

    try:
        processor = CLIPImageProcessor(**to_processor_config(Transform(64)))
    except ImportError as error:
        pytest.skip(f"this transformers has no image processor without torchvision: {error}")
    image = _noise(130, 97)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(Transform(64)([image]), expected, rtol=0, atol=0.02)


def test_a_transform_survives_its_configuration():
    for transform in (Transform(64), Transform(48, keep_aspect=False), Transform(32, "mofi")):
        assert from_processor_config(to_processor_config(transform)) == transform


def test_siglip_configurations_squeeze():
    config = {"size": {"height": 256, "width": 256}, "image_mean": [0.5] * 3, "resample": 2}
    transform = from_processor_config({**config, "image_std": [0.5] * 3, "do_center_crop": None})
    assert (transform.size, transform.keep_aspect, transform.resample) == (256, False, 2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = read_image(Image.new(mode, (5, 4)))
    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_transparency_is_laid_on_white():
    image = read_image(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_decoding_at_a_fraction_reports_the_full_size():
    image, full = decode_image(jpeg(side=640), 64)
    assert full == (640, 640)
    assert image.size[0] < 640


def test_a_cut_off_image_is_an_error_and_not_grey():
    buffer = io.BytesIO()
    _noise(200, 200).save(buffer, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        read_image(buffer.getvalue()[:3000])


def test_whole_levels_are_what_mofi_rounds_to():
    image = _noise(300, 200)
    transform = Transform(64, resize="mofi")
    exact = transform([image])
    rounded = transform.normalise(torch.from_numpy(transform.pixels(image))[None])
    assert (exact - rounded).abs().max() <= 0.51 / 255 / min(transform.std)


@pytest.mark.parametrize("resize", ["pillow", "mofi"])
@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_a_needle_does_not_fill_the_memory(resize, size):
    import tracemalloc

    image = Image.new("RGB", size)
    tracemalloc.start()
    assert Transform(224, resize=resize).pixels(image).shape == (224, 224, 3)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_cutting_a_needle_keeps_the_middle():
    strip = np.zeros((10, 1000, 3), dtype=np.uint8)
    strip[:, 495:505] = 255
    assert Transform(10).pixels(Image.fromarray(strip)).min() == 255


def test_a_photo_of_a_phone_held_upright_stands_upright():
    sideways = Image.new("RGB", (60, 40), "white")
    sideways.paste("black", (0, 0, 30, 40))  # left half: the top, once turned
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    sideways.save(buffer, "JPEG", exif=exif)
    image, full = decode_image(buffer.getvalue())
    assert image.size == full == (40, 60)
    assert image.getpixel((20, 5))[0] < 50 < 200 < image.getpixel((20, 55))[0]
