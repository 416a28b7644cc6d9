// Talks to the worker.

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Error("the worker can't be reached");
  }
  let body;
  try {
    body = await response.json();
  } catch {
    throw new Error(`the worker answered with status ${response.status}`);
  }
  if (!response.ok) throw new Error(body.error ?? `the worker answered with status ${response.status}`);
  return body;
}

export const get = (path) => request(path);

export const post = (path, body = {}) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
