// How each broker fares: what fails with which errors, verdicts, limits.
import { grantsPage } from "./api.js";
import { bars } from "./charts.js";
import { $, atLeast, count, el, link, note, number, show, table, time } from "./dom.js";
import { part } from "./parts.js";
import { verdicts } from "./verdicts.js";
import { rate } from "./workers.js";

let update;

export function open(page) {
  update = page.update;
}

function render(o) {
  failing(o);
  verdicts(o, update);
  own(o);
}
export { render as show };

// failing shows for each broker which share of its active grants fails now, and why.
function failing({ failing: p, stock, at }) {
  const sum = (p.value?.brokers ?? []).reduce((n, b) => n + b.grants, 0);
  if (!part("failing-note", p, at, p.at ? `${atLeast(sum, p.value.more)} active ${sum === 1 ? "grant" : "grants"} of all workers.` : "")) return;
  const active = new Map((stock.value?.brokers ?? []).map((b) => [b.broker, b.byState.active ?? 0]));
  const share = (b) => {
    const all = active.get(b.broker);
    return all ? `${number(Math.min(100, Math.round((1000 * b.grants) / all) / 10))} % of ${number(all)}` : "–";
  };
  const list = (b, error) => grantsPage({ broker: b.broker, state: "active", order: "failed", error });
  show($("failing"), p.value.brokers.length === 0 ? note("None.") : table("Failing grants by broker",
    [{ title: "Broker" }, { title: "Failing", number: true }, { title: "Share of active", number: true }, { title: "Errors" }, { title: "Latest" }],
    p.value.brokers.map((b) => [
      link(list(b), b.broker), atLeast(b.grants, p.value.more), share(b),
      el("ul", { className: "words" }, ...b.errors.map((e) => el("li", {}, link(list(b, e.error), e.error), ` ${number(e.count)}`))),
      time(b.latest)])));
}

function own({ own, at }) {
  document.querySelectorAll(".own-note").forEach((n, i) => {
    n.id ||= `own-note-${i}`;
    part(n.id, { at }, at);
  });
  show($("limits"), own.brokers.length
    ? table("Limits and breakers by broker", [{ title: "Broker" }, { title: "Breaker" }, { title: "Running", number: true }, { title: "Waiting", number: true }, { title: "Rate" }],
      own.brokers.map((b) => [b.broker, el("span", { className: b.breaker === "closed" ? "good" : "bad" }, b.breaker), number(b.running), number(b.waiting), rate(b)]))
    : note("It has refreshed at no broker yet."));
  show($("outcomes"), own.outcomes.length
    ? bars("Refreshes by broker and outcome", ["Broker", "Outcomes", "Bar"], own.outcomes.map((b) => ({
      label: b.broker,
      worded: true,
      parts: [{ value: b.refreshed, tone: "good" }, { value: b.failed, tone: "bad" }],
      text: `${count(b.refreshed, "refreshed", "refreshed")}, ${number(b.failed)} failed${b.errors.length ? ` (${b.errors.map((e) => `${e.error} ${number(e.count)}`).join(", ")})` : ""}`,
    })), [{ tone: "good", text: "refreshed" }, { tone: "bad", text: "failed" }])
    : note("It has refreshed nothing yet."));
  show($("refused"), own.refused.length
    ? table("Access tokens that callers reported as refused, by broker", [{ title: "Broker" }, { title: "Reports", number: true }, { title: "Refreshed for one", number: true }],
      own.refused.map((b) => [b.broker, number(b.reports), number(b.refreshed)]))
    : note("No caller has reported a refused token to it."));
}
