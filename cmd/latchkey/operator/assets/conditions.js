// Shows first what is wrong, and what to do about it.
import { root } from "./api.js";
import { $, announce, el, link, show } from "./dom.js";

const runbook = "https://github.com/latchkey/latchkey/blob/main/docs/runbook.md#";
let told = "";

// conditions shows those that the worker sees. That there are none can be told once everything was read.
export function conditions({ conditions: all, readiness, overdue, failing, letters, verdicts }) {
  const known = all.length > 0 || [readiness, overdue, failing, letters, verdicts].every((p) => p.at);
  list(all.length ? all.map(item) : known ? [el("li", { className: "good" }, el("p", {}, el("strong", {}, "Everything is as it should be.")))] : []);
  const kinds = all.map((c) => c.kind).join();
  if (known && kinds !== told) {
    if (all.length) announce(all.map((c) => c.title).join(". "));
    else if (told) announce("Everything is as it should be");
    told = kinds;
  }
}

// noNews shows that the worker itself does not answer.
export function noNews(why) {
  list([el("li", { className: "bad" },
    el("p", {}, el("strong", {}, `No news: ${why}.`), " What is shown below is from before."),
    el("p", {}, "See whether the worker runs, or open the page of another one. ", guide("LatchkeyWorkerDown")))]);
}

const list = (items) => {
  show($("conditions-list"), ...items);
  $("conditions").hidden = items.length === 0;
};

function item(c) {
  return el("li", { className: c.bad ? "bad" : "warn" },
    el("p", {}, el("span", { className: "mark" }, c.bad ? "Act now" : "Look"), " ", el("strong", {}, c.title)),
    el("p", {}, c.do, " ", c.view ? link(new URL(c.view, root).href, "Show") : null, c.view ? " · " : null, guide(c.runbook)));
}

const guide = (section) => el("a", { href: runbook + section.toLowerCase(), rel: "noreferrer", target: "_blank", ariaLabel: `Runbook: ${section}` }, "Runbook");
