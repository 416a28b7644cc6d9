// Shows where refresh tokens are refused, and has verdicts there held or given.
import { post } from "./api.js";
import { ask } from "./ask.js";
import { $, announce, el, note, number, show, table, time } from "./dom.js";
import { part } from "./parts.js";

const problem = $("verdicts-problem");

// verdicts shows the brokers; changed is called when something was decided.
export function verdicts({ verdicts: p, at }, changed) {
  if (!part("verdicts-note", p, at, "Where refresh tokens were refused in a row, for all workers.")) return;
  show($("verdicts-table"), p.value.length
    ? table("Brokers at which refresh tokens were refused in a row",
      [{ title: "Broker" }, { title: "Verdicts held since" }, { title: "Decided" }, { title: "Refused in a row", number: true }, { title: "First" }, { title: "Last" }, { title: "Decide" }],
      p.value.map((v) => [v.broker, v.heldSince ? el("span", { className: "bad" }, time(v.heldSince)) : "not held", v.decided ?? "–", number(v.refused), time(v.firstAt), time(v.lastAt), button(v, changed)]))
    : note("None: the last refresh at each broker succeeded."));
}

function button(v, changed) {
  const hold = !v.heldSince;
  const text = hold ? "Hold" : "Release";
  const b = el("button", { type: "button", ariaLabel: `${text} verdicts at ${v.broker}` }, text);
  b.addEventListener("click", async () => {
    const yes = hold
      ? await ask(`Hold verdicts at ${v.broker}?`, "No grant there expires because its refresh token is refused, until they are released: grants are tried again slowly, and served as long as their access tokens live.", text)
      : await ask(`Release verdicts at ${v.broker}?`, "Grants there that are refused expire again, once another try has confirmed it. Release them if their users have really left.", text);
    if (!yes) return;
    b.disabled = true;
    problem.textContent = "";
    try {
      await post("verdicts", { broker: v.broker, decision: hold ? "hold" : "release" });
      announce(hold ? `Verdicts at ${v.broker} are held` : `Verdicts at ${v.broker} are given`);
      await changed();
    } catch (error) {
      b.disabled = false;
      problem.textContent = error.message;
    }
    $("verdicts").focus();
  });
  return b;
}
