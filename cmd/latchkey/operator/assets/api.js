// Talks to the worker, and knows where the page lies: perhaps below a folder of a proxy.

export const root = new URL("..", import.meta.url);

// patience bounds a request that only reads, in milliseconds: a worker answers within seconds
// even if what it depends on hangs. An action takes as long as a refresh.
const patience = 15_000;

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(`api/${path}`, root), { cache: "no-store", ...options });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "the worker does not answer" : "the worker can't be reached");
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

export const get = (path) => request(path, { signal: AbortSignal.timeout(patience) });

export const post = (path, body = {}) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// query writes what is set among values as the query of an address.
export function query(values) {
  const set = Object.entries(values).filter(([, value]) => value);
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

// grantsPage is the address of a list of grants, grantPage that of one.
export const grantsPage = (filter) => new URL(`grants${query(filter)}`, root).href;
export const grantPage = (id) => new URL(`grants/${encodeURIComponent(id)}`, root).href;
export const lettersPage = (filter) => new URL(`dead-letters${query(filter)}`, root).href;
