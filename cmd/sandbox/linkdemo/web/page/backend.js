// Refused is an answer of the backend that is no success.
export class Refused extends Error {
  constructor(code, temporary) {
    super(`the backend answered ${code}`);
    this.code = code;
    this.temporary = temporary; // asking again may help
  }
}

// call asks the backend. The session cookie says for whom: nothing that the page
// sends does. What holds tokens is never asked for by GET, so that no cache and
// no history comes near it.
export async function call(path, body = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refused("unreachable", true);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(answer.code ?? "internal", response.status >= 500);
  return answer;
}
