// Says of each part of the page how old it is, or why there is nothing newer.
import { $, span } from "./dom.js";

// shown keeps what was said about each part, so that ages grow between updates.
const shown = new Map();
// part notes in an element from when a part is, with a text about it, and returns whether there
// is something to show. at is when the worker answered; often is how often it reads the part anew.
export function part(id, p, at, text = "", often = 5) {
  const known = Boolean(p.at);
  shown.set(id, { known, problem: p.problem ?? "", text: known ? text : "", age: known ? (Date.parse(at) - Date.parse(p.at)) / 1000 : 0, since: performance.now() });
  say(id);
  return known;
}

function say(id) {
  const { known, problem, text, age, since } = shown.get(id);
  const now = age + (performance.now() - since) / 1000;
  const words = [
    problem && `${problem[0].toUpperCase()}${problem.slice(1)}.`,
    text,
    known ? (now < 2 ? "Just read." : `${span(Math.floor(now))} old.`) : problem ? "" : "Being read…",
  ].filter(Boolean).join(" ");
  const node = $(id);
  node.classList.toggle("problem", Boolean(problem));
  if (node.textContent !== words) node.textContent = words;
}

setInterval(() => [...shown.keys()].forEach(say), 1000);
