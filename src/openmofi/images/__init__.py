"""One encoded image -> pixels, upright and small, a perceptual hash, or the reason why not."""
