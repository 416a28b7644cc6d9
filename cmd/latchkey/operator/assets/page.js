// Shows the view that the address names, and keeps it up to date.
import { get, root } from "./api.js";
import * as brokers from "./brokers.js";
import { conditions, noNews } from "./conditions.js";
import { $, announce, span } from "./dom.js";
import * as grant from "./grant.js";
import * as grants from "./grants.js";
import * as letters from "./letters.js";
import * as status from "./status.js";
import * as workers from "./workers.js";

const views = { status, grants, grant, brokers, letters, workers };
const titles = { status: "Status", grants: "Grants", grant: "Grant", brokers: "Brokers", letters: "Dead letters", workers: "Workers" };
const every = 4000;

const [first, second] = location.pathname.slice(root.pathname.length).split("/");
const name = { "": "status", grants: second ? "grant" : "grants", "dead-letters": "letters" }[first] ?? first;
const view = views[name];

let paused = false;
let reached = true;
let timer;
let working;
let answered = 0;

function open() {
  document.title = `${titles[name]} – Latchkey`;
  document.querySelector(`main [data-view="${name}"]`).hidden = false;
  document.querySelector(`nav [data-view="${name === "grant" ? "grants" : name}"]`).setAttribute("aria-current", "page");
  view.open?.({ id: second && decodeURIComponent(second), filter: new URLSearchParams(location.search), update });
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Resume updates" : "Pause updates";
  clearTimeout(timer);
  tell();
  if (!paused) update();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) update();
});

// update reads what is in view anew, side by side. Who calls it when something was done gets what
// was read after that.
async function update() {
  clearTimeout(timer);
  await working;
  clearTimeout(timer);
  // One fault must not end the updates.
  working = Promise.all([overview(), view.update?.()]).catch((error) => console.error(error));
  await working;
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(update, every);
}

async function overview() {
  let o;
  try {
    o = await get("overview");
  } catch (error) {
    if (reached) announce(`No news: ${error.message}`);
    reached = false;
    noNews(error.message);
    tell();
    return;
  }
  if (!reached) announce("The worker answers again");
  reached = true;
  answered = performance.now();
  $("connection").dataset.worker = o.workerId;
  conditions(o);
  view.show?.(o);
  tell();
}

// tell says in the header whom the page hears, and since when it does not.
function tell() {
  const node = $("connection");
  const seconds = Math.floor((performance.now() - answered) / 1000);
  const age = answered ? span(seconds) : "";
  node.className = reached ? "connection" : "connection bad";
  node.textContent = [
    reached ? node.dataset.worker ?? "Loading…" : age ? `No news for ${age}` : "No news",
    answered && reached ? (seconds < 1 ? "heard just now" : `heard ${age} ago`) : "",
    paused ? "paused" : "",
  ].filter(Boolean).join(", ");
}

setInterval(tell, 1000);
open();
// What is wrong comes first also in time: it would push away what a reader is about to click.
const appear = () => $("main").classList.remove("waiting");
setTimeout(appear, 1500);
update().then(appear);
