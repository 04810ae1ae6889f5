/** The encoder and the entities of a site: an image -> the likeliest entities. */

import * as ort from "./runtime/ort.wasm.min.mjs";
import { read } from "./read.js";
import { fit, normalise } from "./resize.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;

/**
 * Loads a site's files.
 *
 * @param folder address of the site
 * @param loaded called with (bytes so far, bytes in all) while they come
 */
export async function loadTagger(folder, loaded = () => {}) {
  const about = await (await ask(folder, "tagger.json")).json();
  const files = ["image_encoder.onnx", "vectors.f16", "entities.json"];
  const all = files.reduce((total, name) => total + about.bytes[name], 0);
  let sum = 0;
  const count = (bytes) => loaded((sum += bytes), all);
  const [network, vectors, entities] = await Promise.all(
    files.map((name) => fetchBytes(folder, name, about.bytes[name], count)),
  );
  const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
  const names = JSON.parse(new TextDecoder().decode(entities));
  return new Tagger(about, session, fromHalf(new Uint16Array(vectors.buffer)), names);
}

class Tagger {
  /** `vectors`: unit vectors of the entities, one after the other; `entities`: [id, label, text]. */
  constructor(about, session, vectors, entities) {
    Object.assign(this, { about, session, vectors, entities });
  }

  /** Returns {tags, abstains, milliseconds}; throws an Error that says why a file cannot be read. */
  async tag(file) {
    const began = performance.now();
    const image = await read(file, this.about.transform);
    const answer = this.answer(await this.encode(fit(image, this.about.transform)));
    return { ...answer, milliseconds: performance.now() - began };
  }

  /** Returns the unit vector of pixels, Uint8Array of size x size x 3. */
  async encode(pixels) {
    const { transform, input, output } = this.about;
    const shape = [1, 3, transform.size, transform.size];
    const values = new ort.Tensor("float32", normalise(pixels, transform), shape);
    const features = (await this.session.run({ [input]: values }, [output]))[output].data;
    const length = Math.hypot(...features);
    return features.map((value) => value / length);
  }

  /** Returns the likeliest entities of a vector, best first, and whether none is sure enough. */
  answer(vector) {
    const { k, threshold, curve } = this.about;
    const scores = new Float32Array(this.entities.length);
    for (let row = 0, at = 0; row < scores.length; row++) {
      let sum = 0;
      for (let i = 0; i < vector.length; i++) sum += this.vectors[at++] * vector[i];
      scores[row] = sum;
    }
    const tags = best(scores, k).map((row) => {
      const [id, label, description] = this.entities[row];
      return { id, label, description, score: scores[row] };
    });
    if (curve && tags.length) tags[0].probability = interpolate(tags[0].score, curve);
    const abstains = threshold !== null && !(tags[0]?.score >= threshold);
    return { tags, abstains };
  }
}

/** Places of the k largest values, largest first, the first of equal ones before the others. */
function best(scores, k) {
  const found = [];
  scores.forEach((score, row) => {
    if (found.length === k && !(score > scores[found[k - 1]])) return;
    let place = found.length;
    while (place && score > scores[found[place - 1]]) place--;
    found.splice(place, 0, row);
    if (found.length > k) found.pop();
  });
  return found;
}

function interpolate(value, { scores, probabilities }) {
  const after = scores.findIndex((score) => score > value);
  if (after === 0) return probabilities[0];
  if (after < 0) return probabilities.at(-1);
  const share = (value - scores[after - 1]) / (scores[after] - scores[after - 1]);
  return probabilities[after - 1] * (1 - share) + probabilities[after] * share;
}

/** Numbers of 16 bits as numbers of 32. */
function fromHalf(halves) {
  const out = new Float32Array(halves.length);
  halves.forEach((half, i) => {
    const [exponent, fraction] = [(half >> 10) & 31, half & 1023];
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
    out[i] = half & 0x8000 ? -size : size;
  });
  return out;
}

async function ask(folder, name) {
  const answer = await fetch(new URL(name, folder));
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer;
}

async function fetchBytes(folder, name, length, count) {
  const bytes = new Uint8Array(length);
  const reader = (await ask(folder, name)).body.getReader();
  let at = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (at + part.value.length > length) throw new Error(`${name} is longer than it should be.`);
    bytes.set(part.value, at);
    at += part.value.length;
    count(part.value.length);
  }
  if (at < length) throw new Error(`${name} ended after ${at} of ${length} bytes.`);
  return bytes;
}
