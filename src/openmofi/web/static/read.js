/** A file -> its pixels: upright, on white where transparent, colours as stored. */

import { draftSide } from "./resize.js";

const MOST_PIXELS = 89_478_485; // as Python's reader, which takes more for an attack
const LONGEST_ASPECT = 200;
const TILE = 1 << 22; // pixels that are copied at a time
const WIDEST = 1 << 14; // of a canvas; browsers leave one of more than 32,767 or 65,535 white
const SCALES = [8, 4, 2];

/** Returns {data, width, height}, as resize.js takes it; throws an Error that says what is wrong. */
export async function read(file, transform) {
  const bitmap = await createImageBitmap(file, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  }).catch(() => {
    throw new Error("This browser cannot read it as an image.");
  });
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) throw new Error("It has too many pixels.");
    if (Math.max(width, height) > LONGEST_ASPECT * Math.min(width, height)) {
      throw new Error("It is too narrow.");
    }
    return pixelsOf(bitmap, (await isJpeg(file)) ? draftScale(bitmap, draftSide(transform)) : 1);
  } finally {
    bitmap.close();
  }
}

async function isJpeg(file) {
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  return first === 0xff && second === 0xd8;
}

/** How far a JPEG is shrunk before it is resampled: it keeps twice the side that is needed. */
function draftScale({ width, height }, side) {
  if (side === null) return 1;
  const room = Math.min(Math.floor(width / (2 * side)), Math.floor(height / (2 * side)));
  return SCALES.find((scale) => room >= scale) ?? 1;
}

/** Each pixel is the mean of scale x scale of the image's; those at the edges, of what is there. */
function pixelsOf(bitmap, scale) {
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.ceil(side / scale));
  const data = new Uint8Array(width * height * 3);
  const columns = Math.min(width, Math.floor(WIDEST / scale)); // of the result, in a tile
  const rows = Math.min(height, Math.max(Math.floor(TILE / columns / scale ** 2), 1));
  const canvas = new OffscreenCanvas(columns * scale, rows * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  for (let top = 0; top < height; top += rows) {
    const deep = Math.min(rows * scale, bitmap.height - top * scale);
    for (let left = 0; left < width; left += columns) {
      const wide = Math.min(columns * scale, bitmap.width - left * scale);
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(bitmap, -left * scale, -top * scale);
      const tile = context.getImageData(0, 0, wide, deep);
      shrink(tile, scale, data, 3 * (top * width + left), 3 * width);
    }
  }
  return { data, width, height };
}

/** Writes a tile's pixels from `out[at]` on, each row `stride` numbers behind the one before. */
function shrink({ data, width, height }, scale, out, at, stride) {
  for (let y = 0; y < height; y += scale, at += stride) {
    const deep = Math.min(scale, height - y);
    for (let x = 0, to = at; x < width; x += scale) {
      const wide = Math.min(scale, width - x);
      let [r, g, b] = [0, 0, 0];
      for (let i = y; i < y + deep; i++) {
        let from = 4 * (i * width + x);
        for (let k = 0; k < wide; k++, from += 4) {
          r += data[from];
          g += data[from + 1];
          b += data[from + 2];
        }
      }
      const count = deep * wide;
      out[to++] = Math.round(r / count);
      out[to++] = Math.round(g / count);
      out[to++] = Math.round(b / count);
    }
  }
}
