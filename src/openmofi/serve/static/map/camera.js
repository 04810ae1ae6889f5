const LEAST = 0.5;
const MOST = 500;

/** Where the map is looked at from: the centre in 0..1 (y upwards) and a zoom; 1 shows all. */
export class Camera {
  constructor(canvas) {
    this.canvas = canvas;
    this.reset();
  }

  reset() {
    this.place = { x: 0.5, y: 0.5, zoom: 1 };
  }

  get place() {
    return { x: this.x, y: this.y, zoom: this.zoom };
  }

  set place(place) {
    Object.assign(this, place);
  }

  /** Width of 0..1 on the screen, in CSS pixels. */
  get unit() {
    return 0.94 * this.zoom * Math.min(this.canvas.clientWidth, this.canvas.clientHeight);
  }

  toMap(px, py) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return [this.x + (px - width / 2) / this.unit, this.y - (py - height / 2) / this.unit];
  }

  toScreen([x, y]) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return [width / 2 + (x - this.x) * this.unit, height / 2 - (y - this.y) * this.unit];
  }

  pan(dx, dy) {
    const unit = this.unit;
    this.x = Math.min(1, Math.max(0, this.x - dx / unit));
    this.y = Math.min(1, Math.max(0, this.y + dy / unit));
  }

  /** Zooms by a factor; the place under the pixel (px, py) stays where it is. */
  zoomBy(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const [x, y] = this.toMap(px, py);
    this.zoom = Math.min(MOST, Math.max(LEAST, this.zoom * factor));
    const [newX, newY] = this.toMap(px, py);
    this.x += x - newX;
    this.y += y - newY;
  }

  /** What the renderer needs; points grow with the zoom, and are small if they are many. */
  view(points) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const base = Math.min(7, Math.max(2, 340 / Math.sqrt(points + 1)));
    const size = Math.min(14, base * this.zoom ** 0.35) * devicePixelRatio;
    return {
      x: this.x,
      y: this.y,
      scaleX: (2 * this.unit) / width,
      scaleY: (2 * this.unit) / height,
      size,
    };
  }
}
