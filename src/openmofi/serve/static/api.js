/** What the server refused, or could not be asked; `status` 0: there was no answer. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const get = (path, signal) => request(path, { signal }).then((answer) => answer.json());

export const getBytes = (path, signal) =>
  request(path, { signal }).then((answer) => answer.arrayBuffer());

export function post(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal }).then(
    (answer) => answer.json(),
  );
}

/** Sends the bytes of an image; returns {id, width, height, thumbnail}. */
export function upload(file, signal) {
  const headers = { "content-type": "application/octet-stream" };
  return request("/api/uploads", { method: "POST", headers, body: file, signal }).then((answer) =>
    answer.json(),
  );
}

let info = null;

/** What the server holds; asked once. */
export function getInfo() {
  info ??= get("/api/info").catch((error) => {
    info = null;
    throw error;
  });
  return info;
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "no_answer", "The server does not answer; is it still running?");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  const body = await answer.json().catch(() => ({})); // a proxy's error page is not JSON
  const { code = "unknown", message = `The server answered ${answer.status}.` } = body.error ?? {};
  return new ApiError(answer.status, code, message);
}
