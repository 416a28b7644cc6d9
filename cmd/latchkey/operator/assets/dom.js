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

export const link = (href, ...children) => el("a", { href }, ...children);

// table makes one of columns [{title, number, sorted, href}] and rows of cells; the first
// cell of a row names it. On a narrow screen a row becomes a card, whose cells name
// their columns; the roles keep it a table to a screen reader.
export function table(caption, columns, rows) {
  const kind = (i) => (columns[i].number ? "number" : "");
  const head = (c, i) => {
    const node = el("th", { scope: "col", role: "columnheader", className: kind(i) }, c.href ? link(c.href, c.title) : c.title);
    if (c.sorted) node.setAttribute("aria-sort", c.sorted);
    return node;
  };
  const cell = (content, i) => {
    const node = i === 0 ? el("th", { scope: "row", role: "rowheader" }) : el("td", { role: "cell", className: kind(i) });
    node.dataset.label = columns[i].title;
    node.append(el("div", {}, content));
    return node;
  };
  return el("table", { role: "table", className: columns.length > wide ? "wide" : "" },
    el("caption", { className: "hidden" }, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...columns.map(head))),
    el("tbody", { role: "rowgroup" }, ...rows.map((row) => el("tr", { role: "row" }, ...row.map(cell)))));
}

// wide is how many columns a screen of middle width has room for.
const wide = 5;

export const note = (text) => el("p", { className: "note" }, text);

// show replaces the content of an element, unless it would be the same: a reader's
// place and selection stay. What had the focus keeps it.
export function show(node, ...children) {
  const fresh = el("div", {}, ...children);
  if (node.innerHTML === fresh.innerHTML) return;
  const held = node.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  node.replaceChildren(...fresh.childNodes);
  if (held) [...node.querySelectorAll("a, button, input, summary")].find((e) => nameOf(e) === held)?.focus();
}

const nameOf = (node) => node.getAttribute("aria-label") ?? node.textContent;

// facts lists names with values.
export const facts = (pairs) => el("dl", { className: "facts" },
  ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

// announce tells a screen reader.
export function announce(text) { $("announcer").textContent = text; }

const numbers = new Intl.NumberFormat("en");
export const number = (n) => numbers.format(n);
// atLeast words a count of which there may be more, upTo one that stops at a bound.
export const atLeast = (n, more) => (more ? `${number(n)}+` : number(n));
export const upTo = (n, most) => atLeast(n, n >= most);
export const count = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

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
