/** A file -> its pixels: upright, on white where transparent, colours as stored. */

import { draftSide } from "./resize.js";

const MOST_PIXELS = 89_478_485; // as Python's reader, which takes more for an attack
const LONGEST_ASPECT = 200;
const BAND = 1 << 22; // pixels that are copied at a time
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
  const rows = Math.max(Math.floor(BAND / bitmap.width / scale), 1); // of the result, in a band
  const canvas = new OffscreenCanvas(bitmap.width, Math.min(rows * scale, bitmap.height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  for (let top = 0; top < height; top += rows) {
    const stop = Math.min(top + rows, height);
    const deep = Math.min(stop * scale, bitmap.height) - top * scale;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, -top * scale);
    const band = context.getImageData(0, 0, bitmap.width, deep).data;
    shrink(band, bitmap.width, deep, scale, data, 3 * top * width);
  }
  return { data, width, height };
}

function shrink(band, width, height, scale, out, at) {
  for (let y = 0; y < height; y += scale) {
    const deep = Math.min(scale, height - y);
    for (let x = 0; x < width; x += scale) {
      const wide = Math.min(scale, width - x);
      let [r, g, b] = [0, 0, 0];
      for (let i = y; i < y + deep; i++) {
        let from = 4 * (i * width + x);
        for (let k = 0; k < wide; k++, from += 4) {
          r += band[from];
          g += band[from + 1];
          b += band[from + 2];
        }
      }
      const count = deep * wide;
      out[at++] = Math.round(r / count);
      out[at++] = Math.round(g / count);
      out[at++] = Math.round(b / count);
    }
  }
}
