// Draws bars beside their values: a table, so that nothing has to be said twice.
import { el, number } from "./dom.js";

// bars makes one of rows {label, parts: [{value, tone}], text, worded}; legend names the tones, most is the
// value of a full bar.
export function bars(caption, columns, rows, legend, most = Math.max(1, ...rows.map(total))) {
  const bar = (r) => {
    const node = el("div", { className: "bar", ariaHidden: "true" });
    for (const { value, tone } of r.parts) {
      const piece = el("i", { className: tone });
      piece.style.width = `${(100 * value) / most}%`;
      node.append(piece);
    }
    return node;
  };
  return el("div", { className: "chart" },
    el("p", { className: "legend" }, ...legend.map(({ tone, text }) => el("span", {}, el("i", { className: tone, ariaHidden: "true" }), text))),
    el("table", { role: "table", className: rows.some((r) => r.worded) ? "bars worded" : "bars" },
      el("caption", { className: "hidden" }, caption),
      el("thead", { className: "hidden" }, el("tr", {}, ...columns.map((c) => el("th", { scope: "col" }, c)))),
      el("tbody", {}, ...rows.map((r) => el("tr", {}, el("th", { scope: "row" }, r.label), el("td", { className: "number" }, r.text ?? number(total(r))), el("td", {}, bar(r)))))));
}

const total = (r) => r.parts.reduce((sum, p) => sum + p.value, 0);
