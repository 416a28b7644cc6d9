// Builds what the page shows. Texts from outside become text, never markup.

export const $ = (id) => document.getElementById(id);

// el makes an element: properties, then children (texts, elements, or nothing).
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria") || key === "role" || key === "scope") node.setAttribute(key.replace(/^aria(?=[A-Z])/, "aria-").toLowerCase(), value);
    else node[key] = value;
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

// table makes one of columns [{title, number}] and rows of cells; the first
// cell of a row names it.
export function table(caption, columns, rows, captionHidden = true) {
  const kind = (i) => (columns[i].number ? "number" : "");
  return el("table", {},
    el("caption", { className: captionHidden ? "hidden" : "" }, caption),
    el("thead", {}, el("tr", {}, ...columns.map((c, i) => el("th", { scope: "col", className: kind(i) }, c.title)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) =>
      i === 0 ? el("th", { scope: "row" }, cell) : el("td", { className: kind(i) }, cell))))));
}

// fill replaces the content of an element; nothing among the children is left out.
export function fill(node, ...children) {
  node.replaceChildren(...children.filter((c) => c !== null && c !== undefined));
}

// show replaces the content of an element, unless it would be the same: a
// reader's place and selection stay.
export function show(node, ...children) {
  const fresh = el("div", {}, ...children);
  if (node.innerHTML !== fresh.innerHTML) node.replaceChildren(...fresh.childNodes);
}

// facts lists names with values; short ones stay in one line on any screen.
export const facts = (pairs, kind = "") => el("dl", { className: `facts ${kind}` },
  ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

// announce tells a screen reader.
export function announce(text) { $("announcer").textContent = text; }

const numbers = new Intl.NumberFormat("en");
export const number = (n) => numbers.format(n);

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
export const timeOfDay = (t) => clock.format(new Date(t));
export const minuteOfDay = (t) => hour.format(new Date(t));

// time makes an element for a time; none is a dash.
export function time(t) {
  if (!t) return "–";
  return el("time", { dateTime: t, title: new Date(t).toISOString() }, full.format(new Date(t)));
}

// span words a number of seconds.
export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export const states = { active: "active", must_act: "user must act", expired: "expired", revoked: "revoked" };
const tones = { active: "good", must_act: "warn", expired: "bad", revoked: "warn" };
export const state = (s) => el("span", { className: `state ${tones[s] ?? ""}` }, states[s] ?? s);
