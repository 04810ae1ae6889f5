/** Tags files away from the page, one after the other, so that the page never stands still. */

import { loadTagger } from "./tagger.js";

const folder = new URL("./", import.meta.url);
const tagger = loadTagger(folder, (bytes, all) => postMessage({ kind: "loading", bytes, all }));
tagger.then(
  ({ about, entities }) => postMessage({ kind: "ready", about, count: entities.length }),
  (error) => postMessage({ kind: "failed", message: error.message }),
);

let turn = tagger;
onmessage = ({ data: { number, file } }) => {
  turn = turn.then(async (ready) => {
    try {
      postMessage({ kind: "tagged", number, answer: await ready.tag(file) });
    } catch (error) {
      postMessage({ kind: "unread", number, message: error.message });
    }
    return ready;
  });
  turn.catch(() => {}); // the page knows that nothing was loaded
};
