const number = new Intl.NumberFormat("en");

export const count = (n) => number.format(n);

export const images = (n) => `${count(n)} ${n === 1 ? "image" : "images"}`;

export const things = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

/** 0.8125 -> "0.813"; numbers that a reader compares have the same width. */
export const score = (x, digits = 3) => (x == null ? "–" : x.toFixed(digits));

export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1%";
  return `${value.toFixed(value >= 10 || value === 0 ? 0 : 1)}%`;
}

/** snake_case -> "Snake case". */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const languages = new Intl.DisplayNames("en", { type: "language", fallback: "code" });

export function language(code) {
  if (code === "und") return null; // it is not known
  try {
    return languages.of(code);
  } catch {
    return code; // Wikidata has codes that are not BCP 47 tags, such as "mul" variants
  }
}
