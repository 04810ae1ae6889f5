const BITS = 8; // a cell is 2^8 of the 2^16 places wide
const SIDE = 1 << (16 - BITS); // cells per side
const RANGE = 65535;

/** Finds points by place: they are sorted into the cells of a grid, once. */
export class PointGrid {
  /** @param places Uint16 x, y interleaved */
  constructor(places) {
    this.places = places;
    const n = places.length / 2;
    this.start = new Uint32Array(SIDE * SIDE + 1);
    for (let i = 0; i < n; i++) this.start[this.#cellOf(i) + 1]++;
    for (let cell = 0; cell < SIDE * SIDE; cell++) this.start[cell + 1] += this.start[cell];
    this.order = new Uint32Array(n);
    const next = this.start.slice();
    for (let i = 0; i < n; i++) this.order[next[this.#cellOf(i)]++] = i;
  }

  #cellOf(i) {
    return (this.places[2 * i + 1] >> BITS) * SIDE + (this.places[2 * i] >> BITS);
  }

  placeOf(i) {
    return [this.places[2 * i] / RANGE, this.places[2 * i + 1] / RANGE];
  }

  /** Returns the nearest point within `reach` of (x, y), in 0..1, that `passes`, or -1. */
  nearest(x, y, reach, passes = () => true) {
    let best = reach * reach;
    let found = -1;
    for (const i of this.inBox(x - reach, y - reach, x + reach, y + reach)) {
      const [px, py] = this.placeOf(i);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance <= best && passes(i)) [best, found] = [distance, i];
    }
    return found;
  }

  /** Gives the points of the cells that a box touches. */
  *inBox(x0, y0, x1, y1) {
    const cell = (value) => Math.round(Math.min(1, Math.max(0, value)) * RANGE) >> BITS;
    for (let row = cell(y0); row <= cell(y1); row++) {
      const from = this.start[row * SIDE + cell(x0)];
      const to = this.start[row * SIDE + cell(x1) + 1];
      for (let k = from; k < to; k++) yield this.order[k];
    }
  }

  /** Returns how many points lie inside a polygon, [[x, y], ...] in 0..1. */
  countInside(polygon) {
    const xs = polygon.map(([x]) => x);
    const ys = polygon.map(([, y]) => y);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    let inside = 0;
    for (const i of this.inBox(...box)) {
      if (isInside(polygon, ...this.placeOf(i))) inside++;
    }
    return inside;
  }
}

/** Tells by the even-odd rule whether a point lies inside a polygon. */
export function isInside(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i];
    const [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
