/* Colours of the classes: hues by the golden angle, in three lightnesses. */

import { isDark } from "../parts/theme.js";

export const OTHER = 255; // the class of all that have no colour of their own
const DIM = 22; // alpha of what is not lit, of 255

/** Returns [red, green, blue] of a class, for the light or the dark ground. */
export function classColour(index) {
  const dark = isDark();
  if (index === OTHER) return dark ? [120, 126, 122] : [150, 154, 150];
  const hue = (index * 137.508 + 165) % 360;
  const lightness = (dark ? [66, 56, 76] : [42, 54, 34])[index % 3];
  return hslToRgb(hue, dark ? 68 : 62, lightness);
}

/** Returns the 256 colours that the renderer wants; `lit` empty: all are. */
export function palette(lit) {
  const bytes = new Uint8Array(4 * 256);
  for (let index = 0; index < 256; index++) {
    const full = index === OTHER ? 150 : 225;
    const alpha = lit.length === 0 || lit.includes(index) ? full : DIM;
    bytes.set([...classColour(index), alpha], 4 * index);
  }
  return bytes;
}

/** From degrees and percent to 0..255 (CSS Color 4, section 7.1). */
function hslToRgb(hue, saturation, lightness) {
  const s = saturation / 100;
  const l = lightness / 100;
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}
