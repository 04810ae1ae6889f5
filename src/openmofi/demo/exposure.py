"""The effects of light, lens and file format on a photographed scene.

In: the scene [size, size, 3], float32, 0-255. Out: the same, relit, and finally a JPEG.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter


def draw_grey(rng: np.random.Generator) -> tuple[float, float, float]:
    """Returns a dark or light grey, slightly warm or cold."""
    value, warmth = rng.choice([rng.uniform(15, 90), rng.uniform(150, 255)]), rng.uniform(-25, 25)
    return value + warmth, value, value - warmth


def cross_with_wire(scene: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a wire, rope or twig across the image, in place."""
    size = scene.shape[0]
    axis = np.arange(size, dtype=np.float32) / size - 0.5
    angle = rng.uniform(0, np.pi)
    across = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None] - rng.uniform(-0.4, 0.4)
    scene[np.abs(across) < rng.uniform(0.008, 0.035)] = draw_grey(rng)


def relight(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and cast; adds vignetting, a shadow and noise."""
    size = scene.shape[0]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    grey = scene.mean(axis=2, keepdims=True)
    scene = grey + (scene - grey) * np.float32(rng.uniform(0.7, 1.15))
    scene = (scene - 128) * np.float32(rng.uniform(0.75, 1.15)) + 128
    cast = np.exp(rng.normal(0, 0.05, 3)) * rng.uniform(0.75, 1.15)
    scene = scene * cast.astype(np.float32)
    if rng.random() < 0.4:
        fall = axis[None, :] ** 2 + axis[:, None] ** 2
        scene = scene * (1 - np.float32(rng.uniform(0.05, 0.3)) * fall)[..., None]
    if rng.random() < 0.3:
        angle = rng.uniform(0, 2 * np.pi)
        side = (
            np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None] - rng.uniform(-0.6, 0.6)
        )
        dark = np.float32(rng.uniform(0.15, 0.5)) * np.clip(side * 4 + 0.5, 0, 1)
        scene = scene * (1 - dark)[..., None]
    return scene + rng.standard_normal(scene.shape, np.float32) * np.float32(rng.uniform(0, 8))


def develop(scene: np.ndarray, rng: np.random.Generator) -> bytes:
    """Returns the scene as JPEG bytes, sometimes slightly out of focus."""
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9) * image.width / 64))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(45, 93)))
    return stream.getvalue()
