// Keeps the page up to date.
import { get } from "./api.js";
import { bars } from "./charts.js";
import { $, announce, el, facts, minuteOfDay, number, show, span, states, table, time, timeOfDay } from "./dom.js";
import "./grants.js";
import { load as loadLetters } from "./letters.js";
import { verdicts } from "./verdicts.js";

const every = 4000;
let paused = false;
let reached = true;
let timer;
let letterCount;

$("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  if (paused) {
    clearTimeout(timer);
    $("connection").textContent += ", paused";
  } else update();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) update();
});

async function update() {
  clearTimeout(timer);
  try {
    const overview = await get("api/overview");
    if (!reached) announce("The worker answers again");
    reached = true;
    render(overview);
    $("connection").className = "connection";
    $("connection").textContent = `${overview.workerId}, as of ${timeOfDay(overview.at)}`;
    await letters(overview.letters);
  } catch (error) {
    if (reached) announce(`No news: ${error.message}`);
    reached = false;
    $("connection").className = "connection bad";
    $("connection").textContent = `No news: ${error.message}. Trying again.`;
  }
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(update, every);
}

// letters reads the list again when their number has changed, and once in a while.
let sinceLetters = 0;
async function letters(count) {
  sinceLetters += 1;
  if (count.value === letterCount && sinceLetters < 8) return;
  sinceLetters = 0;
  letterCount = count.value;
  await loadLetters();
}

function render(o) {
  glance(o);
  stock(o.stock);
  due(o.schedule);
  note("verdicts-note", o.verdicts);
  verdicts(o.verdicts, update);
  queues(o.queues);
  workers(o.workers);
  own(o);
  note("letters-note", o.letters, (count) => (count === 1 ? "1 waits." : `${number(count)} wait.`));
}

// note says from when a part is, or why there is none.
function note(id, part, text) {
  const node = $(id);
  node.className = part.problem ? "note problem" : "note";
  const known = part.at ? `${text ? `${text(part.value)} ` : ""}As of ${timeOfDay(part.at)}.` : "";
  const full = [part.problem ? `${part.problem[0].toUpperCase()}${part.problem.slice(1)}.` : "", known].filter(Boolean).join(" ");
  if (node.textContent !== full) node.textContent = full;
}

const upTo = (n, most) => (n >= most ? `${number(n)}+` : number(n));

function glance(o) {
  const facts = [];
  const add = (name, value, tone = "") => facts.push(el("div", {}, el("dt", {}, name), el("dd", { className: tone }, value)));
  const stocked = (s) => (o.stock.at ? number(o.stock.value.byState[s] ?? 0) : "–");
  add("grants active", stocked("active"));
  add("must act", stocked("must_act"), o.stock.value.byState?.must_act ? "warn" : "");
  add("expired", stocked("expired"));
  add("due in the next hour", o.schedule.at ? upTo(total(o.schedule.value.due.slice(0, 4)), o.schedule.value.most) : "–");
  const late = o.overdue.value;
  add("overdue", o.overdue.at ? upTo(late.grants, late.most) : "–", late.grants > 0 ? "warn" : "");
  add("longest overdue", o.overdue.at && late.since ? span(Math.max(0, (Date.parse(o.overdue.at) - Date.parse(late.since)) / 1000)) : "–");
  add("dead letters", o.letters.at ? number(o.letters.value) : "–", o.letters.value ? "bad" : "");
  const held = (o.verdicts.value ?? []).filter((v) => v.heldSince).length;
  if (held) add("brokers with verdicts held", number(held), "bad");
  add("workers alive", o.workers.at ? number(o.workers.value.length) : "–", o.workers.at && o.workers.value.length === 0 ? "bad" : "");
  show($("glance"), ...facts);
}

const total = (values) => values.reduce((a, b) => a + b, 0);

function stock(part) {
  note("stock-note", part);
  if (!part.at) return;
  const kinds = Object.keys(states);
  const { brokers, byState, more } = part.value;
  const rows = brokers.map((b) => [b.broker, ...kinds.map((s) => number(b.byState[s] ?? 0)), number(b.total)]);
  if (more) rows.push(["others", ...kinds.map(() => ""), number(more)]);
  rows.push(["all", ...kinds.map((s) => number(byState[s] ?? 0)), number(total(Object.values(byState)))]);
  show($("stock"), table("Grants by broker and state",
    [{ title: "Broker" }, ...kinds.map((s) => ({ title: states[s], number: true })), { title: "All", number: true }], rows));
}

function due(part) {
  note("due-note", part, (s) => `${upTo(total(s.due), s.most)} due, by quarters of an hour.`);
  if (!part.at) return;
  const s = part.value;
  const start = (i) => Date.parse(s.from) + i * s.seconds * 1000;
  bars("due-chart", `Grants due in the next 6 hours: ${number(total(s.due))}. The numbers are in the table that follows.`,
    s.due.map((_, i) => start(i) / 1000), s.due);
  show($("due-table"), table("Grants due, by quarters of an hour", [{ title: "From" }, { title: "Due", number: true }],
    s.due.map((n, i) => [minuteOfDay(start(i)), upTo(n, s.most)])));
}

function queues(part) {
  note("queues-note", part);
  if (!part.at) return;
  show($("queues-table"), table("Messages that wait, by subject",
    [{ title: "Subject" }, { title: "Waiting", number: true }, { title: "In hand", number: true }, { title: "Again", number: true }],
    part.value.map((q) => [q.subject, number(q.waiting), number(q.inHand), number(q.redelivered)])));
}

function workers(part) {
  note("workers-note", part, () => "Those that answered, with what each has done since it started.");
  if (!part.at) return;
  show($("workers-table"), table("Workers that answered",
    [{ title: "Worker" }, { title: "Started" }, { title: "Refreshed", number: true }, { title: "Failed", number: true }, { title: "Token requests", number: true }],
    part.value.map((w) => [w.self ? `${w.id} (this one)` : w.id, time(w.started), number(w.refreshed), number(w.failed), number(w.requests)])));
}

function own({ workerId, readiness, own }) {
  if ($("own-id").textContent !== workerId) $("own-id").textContent = workerId;
  show($("checks"), facts(readiness.checks.map((c) => [c.name,
    el("span", { className: c.ok ? "good" : c.needed ? "bad" : "warn" }, c.ok ? "ok" : c.detail || "not ok")]), "short"));
  const late = own.lateness;
  const within = (s) => (s < 0 ? "longer than all bounds" : `within ${span(s)}`);
  show($("pace"), facts([
    ["Refreshes", `${number(own.running)} running, ${number(own.waiting)} waiting`],
    ["Rate", rate(own)],
    ...(own.pausedUntil ? [["Paused", el("span", { className: "bad" }, "Mesh refuses the client credentials; until ", time(own.pausedUntil))]] : []),
    ["Refreshed since it started", `${number(own.work.refreshed)}, and ${number(own.work.failed)} failed`],
    ["Lateness since it started", late.refreshes ? `half began ${within(late.within50)}, 99 of 100 ${within(late.within99)}` : "nothing was refreshed"],
  ]));
  show($("brokers"), own.brokers.length
    ? table("Limits and breakers by broker", [{ title: "Broker" }, { title: "Breaker" }, { title: "Running", number: true }, { title: "Waiting", number: true }, { title: "Rate" }],
      own.brokers.map((b) => [b.broker, el("span", { className: b.breaker === "closed" ? "good" : "bad" }, b.breaker), number(b.running), number(b.waiting), rate(b)]))
    : el("p", { className: "note" }, "It has refreshed at no broker yet."));
  show($("refused"), own.refused?.length
    ? table("Access tokens that callers reported as refused, by broker", [{ title: "Broker" }, { title: "Reports", number: true }, { title: "Refreshed for one", number: true }],
      own.refused.map((b) => [b.broker, number(b.reports), number(b.refreshed)]))
    : el("p", { className: "note" }, "No caller has reported a refused token to it."));
}

const rate = (r) => (r.rate < r.fullRate ? `${number(r.rate)} of ${number(r.fullRate)} a second` : `${number(r.fullRate)} a second`);

update();
