// Lists dead letters by reason, and replays or drops one or all that are selected. The address
// says which are selected.
import { get, grantPage, lettersPage, post, query } from "./api.js";
import { ask } from "./ask.js";
import { $, announce, count, el, link, note, number, show, table, time } from "./dom.js";
import { part } from "./parts.js";

const fields = ["user", "message", "reason", "is", "from"];
let filter;
let updateAll;
// replayed is when this page last replayed something, by the worker's clock.
let replayed = "";
let seen; // how many there were when they were read
let reads = 0;
let waiting = 0; // how many there are

export function open(page) {
  updateAll = page.update;
  filter = Object.fromEntries(fields.map((f) => [f, page.filter.get(f) ?? ""]));
  for (const f of ["user", "reason"]) $(`letters-${f}`).value = filter[f];
  $("letters-filter").addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(lettersPage({ user: $("letters-user").value, message: $("letters-message").value, reason: $("letters-reason").value }));
  });
}

// render notes how many there are, so that the list is read again when that changes.
function render({ letters }) {
  if (letters.at) waiting = letters.value;
}
export { render as show };

// rest is how many updates pass without a change until the list is read all the same.
const rest = 5;

export async function update() {
  reads += 1;
  if (seen === waiting && reads % rest !== 1 && !replayed) return;
  seen = waiting;
  await load();
}

async function load() {
  const { from, ...which } = filter;
  await Promise.all([
    get(`dead-letters/reasons${query({ ...which, since: replayed })}`).then(reasons, (error) => part("letters-note", { problem: error.message }, 0)),
    get(`dead-letters${query(filter)}`).then(list, (error) => part("letters-note", { problem: error.message }, 0)),
  ]);
}

function reasons(tally) {
  const at = new Date().toISOString();
  part("letters-note", { at }, at, `${count(tally.letters, "dead letter", "dead letters")}${selected() ? " selected" : ""}${tally.partial ? " so far; there are more than could be counted" : ""}.`);
  const names = [...new Set(tally.messages)];
  if ($("letters-message").options.length === 1) {
    $("letters-message").append(...names.map((value) => el("option", { value }, value)));
    $("letters-message").value = filter.message;
  }
  show($("letters-reasons"), tally.letters === 0 ? note(tally.partial ? "None so far." : "There are none.") : table("Dead letters by reason",
    [{ title: "Reason" }, { title: "Message" }, { title: "Letters", number: true }, { title: "Failed again", number: true }, { title: "Oldest" }, { title: "Newest" }],
    tally.reasons.map((r) => [
      link(lettersPage({ user: filter.user, message: r.message, is: r.reason }), r.reason), r.message || "unreadable", number(r.letters), number(r.again), time(r.oldest), time(r.newest)])));
  const bulk = (verb, path, title, text) => {
    const b = el("button", { type: "button" }, `${verb} ${tally.letters === 1 ? "it" : `all ${number(tally.letters)}`}${selected() ? " selected" : ""}`);
    b.addEventListener("click", async () => {
      if (await ask(title, text, verb)) await act(b, `dead-letters/${path}`, { ...filter, from: undefined, through: tally.through });
    });
    return b;
  };
  const these = `${count(tally.letters, "dead letter", "dead letters")}${selected() ? ` (${selected()})` : ""}`;
  const key = `${tally.letters} ${tally.through}`;
  if ($("letters-bulk").dataset.key !== key) $("letters-bulk").replaceChildren(...(tally.letters === 0 ? [] : [
    bulk("Replay", "replay", `Replay ${these}?`, "Their messages go back to where they came from and are handled again. What fails again becomes a new dead letter."),
    bulk("Drop", "drop", `Drop ${these} for good?`, "Their messages are deleted and can't be brought back."),
  ]));
  $("letters-bulk").dataset.key = key;
  if (replayed) again(tally.again);
}

const selected = () => [
  filter.user && `of ${filter.user}`, filter.message, filter.is && `“${filter.is}”`, filter.reason && `reason contains “${filter.reason}”`,
].filter(Boolean).join(", ");

let result = "";
let left = false; // some of what was to be replayed was not

// again says of what was replayed here how much has failed again.
function again(failed) {
  tell(`${result} ${failed ? `${count(failed, "message has", "messages have")} failed again.` : "None has failed again so far."}`, failed || left ? "bad" : "good");
}

function tell(text, tone) {
  const node = $("letters-result");
  node.className = tone;
  if (node.textContent !== text) node.textContent = text;
}

function list({ letters, next }) {
  show($("letters-list"), letters.length === 0 ? note(next ? "None of those that were looked at; there are more on the next page." : "No dead letter is listed.") : el("ul", { className: "cards" }, ...letters.map(card)));
  const pages = [];
  if (filter.from) pages.push(link(lettersPage({ ...filter, from: "" }), "Oldest"));
  if (next) pages.push(link(lettersPage({ ...filter, from: String(next) }), "Next page"));
  show($("letters-pages"), ...pages);
}

function card(l) {
  const button = (text, title, question, path) => {
    const b = el("button", { type: "button", ariaLabel: `${text} dead letter ${l.id}` }, text);
    b.addEventListener("click", async () => {
      if (await ask(title, question, text)) await act(b, `dead-letters/${l.sequence}/${path}`, { id: l.id });
    });
    return b;
  };
  const replay = button("Replay", "Replay this dead letter?", `Its message goes back to ${l.subject} and is handled again. What fails again becomes a new dead letter. (${l.reason})`, "replay");
  replay.disabled = Boolean(l.bodyRemoved);
  return el("li", {},
    el("div", {},
      el("p", {}, el("strong", {}, l.message || "unreadable"), ` ${l.reason}`, l.replayed ? el("span", { className: "state bad" }, "failed again after a replay") : null),
      note(el("span", {}, "Parked ", time(l.parkedAt), `, after ${count(l.attempts, "attempt", "attempts")}, from ${l.subject}`, l.bodyRemoved ? ", without its body: there is nothing to replay" : "")),
      el("p", { className: "note id" }, l.id, l.grant ? " · " : null, l.grant ? link(grantPage(l.grant), "its grant") : null)),
    el("p", { className: "buttons" }, replay, button("Drop", "Drop this dead letter for good?", `Its message is deleted and can't be brought back. (${l.message || "unreadable"}: ${l.reason})`, "drop")));
}

async function act(button, path, body) {
  const near = button.closest("li");
  const place = near ? [...document.querySelectorAll("#letters-list li")].indexOf(near) : -1;
  button.disabled = true;
  tell("Working…", "");
  try {
    const answer = await post(path, body);
    result = answer.text;
    left = Boolean(answer.problem);
    replayed = answer.at ?? "";
    tell(answer.text, answer.problem ? "problem" : "good");
    announce(answer.text);
  } catch (error) {
    replayed = "";
    tell(error.message, "problem");
  }
  seen = undefined;
  await updateAll();
  button.disabled = false; // it is still there if nothing changed
  const items = document.querySelectorAll("#letters-list li");
  (items[Math.max(0, Math.min(place, items.length - 1))]?.querySelector("button:enabled") ?? $("letters")).focus();
}
