// Lists grants: filtered, in an order, page by page. The address says which.
import { get, grantPage, grantsPage, lettersPage, query } from "./api.js";
import { $, announce, count, el, link, note, number, show, state, states, table, time } from "./dom.js";
import { part } from "./parts.js";

const fields = ["user", "broker", "state", "error", "order", "after"];
let filter;
let reached = false;

export function open(page) {
  filter = Object.fromEntries(fields.map((f) => [f, page.filter.get(f) ?? ""]));
  $("filter-state").append(...Object.entries(states).map(([value, text]) => el("option", { value }, text)));
  for (const f of fields.filter((f) => f !== "after")) $(`filter-${f}`).value = filter[f];
  $("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(grantsPage(Object.fromEntries(fields.map((f) => [f, $(`filter-${f}`)?.value ?? ""]))));
  });
}

// render offers the names of brokers and errors that there are.
function render(o) {
  const options = (names) => [...new Set(names)].map((value) => el("option", { value }));
  show($("broker-names"), ...options((o.stock.value?.brokers ?? []).map((b) => b.broker)));
  show($("error-names"), ...options((o.failing.value?.brokers ?? []).flatMap((b) => b.errors.map((e) => e.error))));
}
export { render as show };

export async function update() {
  let answer;
  try {
    answer = await get(`grants${query(filter)}`);
  } catch (error) {
    part("grants-note", { problem: error.message }, 0);
    return;
  }
  list(answer);
  if (!reached) announce(said(answer));
  reached = true;
}

const said = ({ grants, more, read, next }) => [
  grants.length === 0 && !next ? "None." : `${count(grants.length + (more ?? 0), "grant", "grants")}${filter.user ? ` of ${filter.user}` : next ? " on this page" : ""}.`,
  more ? `${number(more)} of them are not shown.` : "",
  next && grants.length < 50 ? `These are those among ${number(read)} that were looked at; there are more to look at.` : "",
].filter(Boolean).join(" ");

function list(answer) {
  const now = new Date().toISOString();
  part("grants-note", { at: now }, now, said(answer));
  const sort = (order) => grantsPage({ ...filter, after: "", order });
  const due = filter.order === "due" || filter.order === "overdue";
  show($("grants-list"), answer.grants.length === 0 ? note("No grant is listed.") : table("Grants", [
    { title: "User" },
    { title: "Broker", href: filter.user ? null : sort(""), sorted: filter.order || filter.user ? null : "ascending" },
    { title: "State" },
    { title: "Last error", href: sort("failed"), sorted: filter.order === "failed" ? "descending" : null },
    { title: "Failed in a row", number: true },
    { title: "Next action", href: sort("due"), sorted: due ? "ascending" : null },
    { title: "Accounts" },
    { title: "Grant" },
  ], answer.grants.map(row)));
  const pages = [];
  if (filter.after) pages.push(link(grantsPage({ ...filter, after: "" }), "First page"));
  if (answer.next) pages.push(link(grantsPage({ ...filter, after: answer.next }), "Next page"));
  if (filter.user) pages.push(link(lettersPage({ user: filter.user }), "Dead letters of this user"));
  show($("grants-pages"), ...pages);
}

const row = (g) => [
  link(grantsPage({ user: g.user }), g.user),
  g.brokerName && g.brokerName !== g.broker ? `${g.brokerName} (${g.broker})` : g.broker,
  el("span", {}, state(g.state), g.reason ? ` ${g.reason}` : ""),
  g.lastError ? el("span", {}, lastError(g.lastError)) : "–",
  number(g.tries),
  g.due ? el("span", {}, `${g.due.action}, `, time(g.due.at)) : "none",
  g.accounts.map((a) => a.name || a.id).join(", ") || "not known yet",
  el("a", { href: grantPage(g.id), ariaLabel: `Open the grant of ${g.user} at ${g.brokerName || g.broker}` }, "Open"),
];

export const lastError = (e) => el("span", {}, [e.errorType, e.class, e.detail].filter(Boolean).join(", "), ", ", time(e.at));
