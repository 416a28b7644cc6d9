// The workers, and the one that serves the page.
import { $, el, facts, number, show, span, table, time } from "./dom.js";
import { part } from "./parts.js";

function render(o) {
  workers(o);
  own(o);
}
export { render as show };

function workers({ workers: p, at }) {
  if (!part("workers-note", p, at, "What each has done since it started.")) return;
  show($("workers"), table("Workers that answered",
    [{ title: "Worker" }, { title: "Started" }, { title: "Refreshed", number: true }, { title: "Failed", number: true }, { title: "Token requests", number: true }],
    p.value.map((w) => [w.self ? `${w.id} (this one)` : w.id, time(w.started), number(w.refreshed), number(w.failed), number(w.requests)])));
}

function own({ workerId, readiness, own, at }) {
  if ($("own-id").textContent !== workerId) $("own-id").textContent = workerId;
  if (part("ready-note", readiness, at)) {
    show($("checks"), facts(readiness.value.checks.map((c) => [c.name,
      el("span", { className: c.ok ? "good" : c.needed ? "bad" : "warn" }, c.ok ? "ok" : c.detail || "not ok")])));
  }
  const late = own.lateness;
  const within = (s) => (s < 0 ? "longer than all bounds" : `within ${span(s)}`);
  show($("pace"), facts([
    ["Refreshes", `${number(own.running)} running, ${number(own.waiting)} waiting`],
    ["Rate", rate(own)],
    ...(own.pausedUntil ? [["Paused", el("span", { className: "bad" }, "Mesh refuses the client credentials; until ", time(own.pausedUntil))]] : []),
    ["Refreshed since it started", `${number(own.work.refreshed)}, and ${number(own.work.failed)} failed`],
    ["Lateness since it started", late.refreshes ? `half began ${within(late.within50)}, 99 of 100 ${within(late.within99)}` : "nothing was refreshed"],
  ]));
}

export const rate = (r) => (r.rate < r.fullRate ? `${number(r.rate)} of ${number(r.fullRate)} a second` : `${number(r.fullRate)} a second`);
