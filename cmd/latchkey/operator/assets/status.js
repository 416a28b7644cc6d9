// The status: numbers that lead to lists of what they count.
import { get, grantPage, grantsPage, lettersPage, root } from "./api.js";
import { bars } from "./charts.js";
import { $, atLeast, el, link, minuteOfDay, number, show, span, states, table, upTo } from "./dom.js";
import { part } from "./parts.js";

export function open() {
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    find($("find").value);
  });
}

// find goes to the grant with an id, or to the grants of a user.
async function find(text) {
  if (/^[a-z2-7]{32}$/.test(text) && await get(`grants/${text}`).then(() => true, () => false)) location.assign(grantPage(text));
  else location.assign(grantsPage({ user: text }));
}

function render(o) {
  glance(o);
  stock(o);
  due(o);
  queues(o);
}
export { render as show };

const total = (values) => values.reduce((a, b) => a + b, 0);

function glance(o) {
  const items = [];
  const add = (name, value, href, tone = "") =>
    items.push(el("div", {}, el("dt", {}, name), el("dd", { className: tone }, href && value !== "–" ? link(href, value) : value)));
  const stocked = (s) => (o.stock.at ? number(o.stock.value.byState[s] ?? 0) : "–");
  for (const s of ["active", "must_act", "expired"]) {
    add(`grants ${states[s]}`, stocked(s), grantsPage({ state: s }), s === "must_act" && o.stock.value?.byState?.must_act ? "warn" : "");
  }
  const failing = total((o.failing.value?.brokers ?? []).map((b) => b.grants));
  add("failing now", o.failing.at ? atLeast(failing, o.failing.value.more) : "–", grantsPage({ state: "active", order: "failed" }), failing ? "warn" : "");
  add("due in the next hour", o.schedule.at ? upTo(total(o.schedule.value.due.slice(0, 4)), o.schedule.value.most) : "–", grantsPage({ order: "due" }));
  const late = o.overdue.value;
  const by = o.overdue.at && late.since ? Math.max(0, (Date.parse(o.overdue.at) - Date.parse(late.since)) / 1000) : 0;
  add("overdue", o.overdue.at ? upTo(late.grants, late.most) : "–", grantsPage({ order: "overdue" }), by > 60 ? "warn" : "");
  add("dead letters", o.letters.at ? number(o.letters.value) : "–", lettersPage({}), o.letters.value ? "warn" : "");
  add("workers alive", o.workers.at ? number(o.workers.value.length) : "–", new URL("workers", root).href);
  show($("glance"), ...items);
  const oldest = [o.stock, o.failing, o.schedule, o.overdue, o.letters, o.workers].reduce((a, b) => (!b.at || (a.at && Date.parse(a.at) < Date.parse(b.at)) ? a : b));
  part("glance-note", { at: oldest.at }, o.at, "The oldest of these numbers:");
}

function stock({ stock: p, at }) {
  if (!part("stock-note", p, at, "All workers' grants.")) return;
  const kinds = Object.keys(states);
  const { brokers, byState, more } = p.value;
  const counted = (n, filter) => (n ? link(grantsPage(filter), number(n)) : "0");
  const rows = brokers.map((b) => [link(grantsPage({ broker: b.broker }), b.broker), ...kinds.map((s) => counted(b.byState[s], { broker: b.broker, state: s })), number(b.total)]);
  if (more) rows.push(["others", ...kinds.map(() => "–"), number(more)]);
  rows.push(["all", ...kinds.map((s) => counted(byState[s], { state: s })), number(total(Object.values(byState)))]);
  show($("stock"), table("Grants by broker and state",
    [{ title: "Broker" }, ...kinds.map((s) => ({ title: states[s], number: true })), { title: "All", number: true }], rows));
}

// together is how many spans of the worker's make one bar.
const together = 2;

function due({ schedule: p, at }) {
  if (!part("due-note", p, at, p.at ? `${upTo(total(p.value.due), p.value.most)} next actions of all workers.` : "")) return;
  const s = p.value;
  const start = (i) => minuteOfDay(Date.parse(s.from) + i * s.seconds * 1000);
  const rows = [];
  for (let i = 0; i < s.due.length; i += together) {
    const some = s.due.slice(i, i + together);
    rows.push({ label: start(i), parts: [{ value: total(some), tone: "plain" }], text: some.some((n) => n >= s.most) ? `${number(total(some))}+` : number(total(some)) });
  }
  show($("due"), bars("Grants due, by when", ["From", "Due", "Bar"], rows, [{ tone: "plain", text: `grants due within ${span(s.seconds * together)} from then on` }]));
}

function queues({ queues: p, at }) {
  if (!part("queues-note", p, at, "Messages of all workers.")) return;
  show($("queues"), table("Messages that wait, by subject",
    [{ title: "Subject" }, { title: "Waiting", number: true }, { title: "In hand", number: true }, { title: "Delivered again", number: true }],
    p.value.map((q) => [q.subject, number(q.waiting), number(q.inHand), number(q.redelivered)])));
}
