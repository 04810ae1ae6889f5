import { get } from "./api.js";

/* Labels of entities and types met so far: filters in the address are ids. */
const labels = new Map();

export function learn(things) {
  for (const { id, label } of things) if (label) labels.set(id, label);
}

/** Returns the label of an id, or the id. */
export const nameOf = (id) => labels.get(id) ?? id;

/** Writes the label of an entity into a node, asking the server where it is not known yet. */
export async function nameInto(node, id) {
  node.textContent = nameOf(id);
  if (labels.has(id)) return;
  try {
    learn([await get(`/api/entities/${encodeURIComponent(id)}`)]);
  } catch {
    return; // its id stays
  }
  node.textContent = nameOf(id);
}
