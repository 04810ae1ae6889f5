/**
 * Images at a network's size, as Python's openmofi.model.transform has them: Pillow's antialiased
 * resampling in integers, to the last bit, or, for MOFI, bilinear without antialiasing.
 *
 * An image is {data, width, height}, with three numbers from 0 to 255 for each pixel.
 */

const LONGEST_ASPECT = { pillow: 16, mofi: 200 }; // the ends of longer images are cut off
const BITS = 22; // of a weight's fraction: 8 of a level, 2 to spare, 32 in all
const HALF = 1 << (BITS - 1);

/** Pixels to which the shorter side, or each side, is resized. */
const resizedSide = (transform) => transform.resize_to ?? transform.size;

/** Side for which a JPEG may be decoded at a fraction of its size; null if every pixel counts. */
export const draftSide = (transform) =>
  transform.resize === "mofi" ? null : resizedSide(transform);

/** The image's pixels at the input's size, Uint8Array of size x size x 3. */
export function fit(image, transform) {
  const whole = withoutNeedleEnds(image, transform.resize);
  if (transform.resize === "mofi") return fitAsMofi(whole, transform);
  const side = resizedSide(transform);
  const squeezed = { width: side, height: side };
  const target = transform.keep_aspect ? shorterSide(whole, side) : squeezed;
  const resized = resample(whole, target, transform.resample);
  const [left, top] = [target.width, target.height].map((length) => margin(length, transform));
  return crop(resized, left, top, transform.size, transform.size).data;
}

/** Network input, Float32Array of 3 x size x size. */
export function normalise(pixels, { mean, std }) {
  const count = pixels.length / 3;
  const out = new Float32Array(pixels.length);
  for (let c = 0; c < 3; c++) {
    const [shift, scale] = [Math.fround(mean[c]), Math.fround(std[c])];
    for (let i = 0; i < count; i++) {
      out[c * count + i] = Math.fround(Math.fround(pixels[3 * i + c] / 255) - shift) / scale;
    }
  }
  return out;
}

function margin(length, { size, crop_to_nearest: nearest }) {
  const spare = length - size;
  return nearest ? roundHalfEven(spare / 2) : Math.floor(spare / 2);
}

function roundHalfEven(value) {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 ? down + 1 : down;
}

function shorterSide({ width, height }, target) {
  const scaled = (length, by) => Math.max(Math.floor((target * length) / by), target);
  return width <= height
    ? { width: target, height: scaled(height, width) }
    : { width: scaled(width, height), height: target };
}

function withoutNeedleEnds(image, resize) {
  const { width, height } = image;
  const reach = LONGEST_ASPECT[resize] * Math.min(width, height);
  if (Math.max(width, height) <= reach) return image;
  const left = Math.max(Math.floor((width - reach) / 2), 0);
  const top = Math.max(Math.floor((height - reach) / 2), 0);
  return crop(image, left, top, width - 2 * left, height - 2 * top);
}

function crop(image, left, top, width, height) {
  if (width === image.width && height === image.height) return image;
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = 3 * ((top + y) * image.width + left);
    data.set(image.data.subarray(from, from + 3 * width), 3 * y * width);
  }
  return { data, width, height };
}

/** Pillow's two passes; each rounds to 8 bits. */
function resample(image, target, filter) {
  const across = target.width === image.width ? image : passAcross(image, target.width, filter);
  return target.height === image.height ? across : passDown(across, target.height, filter);
}

function passAcross({ data, width, height }, size, filter) {
  const { starts, counts, weights, most } = weightsOf(width, size, filter);
  const out = new Uint8Array(size * height * 3);
  for (let x = 0; x < size; x++) {
    const [start, count, first] = [starts[x], counts[x], x * most];
    for (let y = 0; y < height; y++) {
      let [r, g, b] = [HALF, HALF, HALF];
      let at = 3 * (y * width + start);
      for (let k = 0; k < count; k++, at += 3) {
        const weight = weights[first + k];
        r += data[at] * weight;
        g += data[at + 1] * weight;
        b += data[at + 2] * weight;
      }
      put(out, 3 * (y * size + x), r, g, b);
    }
  }
  return { data: out, width: size, height };
}

function passDown({ data, width, height }, size, filter) {
  const { starts, counts, weights, most } = weightsOf(height, size, filter);
  const out = new Uint8Array(width * size * 3);
  const sums = new Int32Array(width * 3);
  for (let y = 0; y < size; y++) {
    sums.fill(HALF);
    for (let k = 0; k < counts[y]; k++) {
      const weight = weights[y * most + k];
      const row = 3 * width * (starts[y] + k);
      for (let i = 0; i < sums.length; i++) sums[i] += data[row + i] * weight;
    }
    const row = 3 * width * y;
    for (let i = 0; i < sums.length; i++) out[row + i] = level(sums[i]);
  }
  return { data: out, width, height: size };
}

function put(out, at, r, g, b) {
  out[at] = level(r);
  out[at + 1] = level(g);
  out[at + 2] = level(b);
}

const level = (sum) => Math.min(Math.max(sum >> BITS, 0), 255);

/** The source pixels of each result and their weights, as integers of BITS fractional bits. */
function weightsOf(length, size, filter) {
  const [radius, kernel] = filter === 3 ? [2, bicubic] : [1, triangle];
  const scale = length / size;
  const wide = Math.max(scale, 1); // smaller results average more pixels
  const support = radius * wide;
  const most = Math.ceil(support) * 2 + 1;
  const [starts, counts] = [new Int32Array(size), new Int32Array(size)];
  const weights = new Int32Array(size * most);
  for (let x = 0; x < size; x++) {
    const centre = (x + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const stop = Math.min(Math.trunc(centre + support + 0.5), length);
    const row = [];
    for (let k = start; k < stop; k++) row.push(kernel((k - centre + 0.5) * (1 / wide)));
    const sum = row.reduce((total, weight) => total + weight, 0);
    row.forEach((weight, k) => {
      const scaled = (sum ? weight / sum : weight) * (1 << BITS);
      weights[x * most + k] = Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    [starts[x], counts[x]] = [start, stop - start];
  }
  return { starts, counts, weights, most };
}

const triangle = (x) => Math.max(1 - Math.abs(x), 0);

/** Keys's cubic convolution with a = -1/2. */
function bicubic(x) {
  const [a, t] = [-0.5, Math.abs(x)];
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

function fitAsMofi(image, transform) {
  const target = shorterSide(image, resizedSide(transform));
  const { size } = transform;
  const left = roundHalfEven((target.width - size) / 2);
  const top = roundHalfEven((target.height - size) / 2);
  const across = neighbours(image.width, target.width, left, size);
  const down = neighbours(image.height, target.height, top, size);
  const out = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      for (let c = 0; c < 3; c++) {
        const value = (row, column) => image.data[3 * (row * image.width + column) + c];
        const [one, other] = [down.low[y], down.high[y]].map(
          (row) =>
            value(row, across.low[x]) * (1 - across.share[x]) +
            value(row, across.high[x]) * across.share[x],
        );
        const mixed = one * (1 - down.share[y]) + other * down.share[y];
        out[3 * (y * size + x) + c] = roundHalfEven(mixed);
      }
    }
  }
  return out;
}

/** For each place of a part of a resized line, its two source places and the share of the second. */
function neighbours(length, resized, from, count) {
  const [low, high, share] = [[], [], []];
  for (let i = from; i < from + count; i++) {
    const place = Math.max(((i + 0.5) * length) / resized - 0.5, 0);
    const first = Math.min(Math.floor(place), length - 1);
    low.push(first);
    high.push(Math.min(first + 1, length - 1));
    share.push(place - first);
  }
  return { low, high, share };
}
