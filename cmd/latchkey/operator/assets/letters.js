// Lists dead letters, and replays or drops one.
import { get, post } from "./api.js";
import { ask } from "./ask.js";
import { $, announce, el, number, time } from "./dom.js";

const list = $("letters-list");
let from = 0;
let shown = "";

$("letters-more").addEventListener("click", (event) => load(Number(event.target.dataset.next)));
$("letters-first").addEventListener("click", () => load(0));

// load shows the dead letters from a place in the stream on.
export async function load(place = from) {
  let answer;
  try {
    answer = await get(place ? `api/dead-letters?from=${place}` : "api/dead-letters");
  } catch (error) {
    list.replaceChildren(el("p", { className: "problem" }, error.message));
    shown = "";
    return;
  }
  from = place;
  const key = JSON.stringify(answer);
  if (key === shown) return;
  shown = key;
  const more = $("letters-more");
  more.hidden = !answer.next;
  more.dataset.next = answer.next;
  $("letters-first").hidden = !from;
  const held = list.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  list.replaceChildren(answer.letters.length === 0
    ? el("p", { className: "note" }, "There are none here.")
    : el("ul", { className: "cards" }, ...answer.letters.map(card)));
  if (held) [...list.querySelectorAll("button")].find((b) => b.getAttribute("aria-label") === held)?.focus();
}

function card(l) {
  const button = (text, title, question, path, done) => {
    const b = el("button", { type: "button", ariaLabel: `${text} dead letter ${l.id}` }, text);
    b.addEventListener("click", async () => {
      if (await ask(title, question, text)) await act(b, `api/dead-letters/${l.sequence}/${path}`, l.id, done);
    });
    return b;
  };
  return el("li", {},
    el("div", {},
      el("p", {}, el("strong", {}, l.message || "unreadable"), ` ${l.reason}`),
      el("p", { className: "note" }, "Parked ", time(l.parkedAt), `, after ${l.attempts === 1 ? "1 attempt" : `${number(l.attempts)} attempts`}, from ${l.subject}`),
      el("p", { className: "note id" }, l.id)),
    el("p", { className: "buttons" },
      button("Replay", "Replay this dead letter?", `Its message goes back to ${l.subject} and is handled again. What fails again becomes a new dead letter. (${l.reason})`, "replay", "Replayed"),
      button("Drop", "Drop this dead letter for good?", `Its message is deleted and can't be brought back. (${l.message || "unreadable"}: ${l.reason})`, "drop", "Dropped")));
}

async function act(button, path, id, done) {
  button.disabled = true;
  const place = [...list.querySelectorAll("li")].indexOf(button.closest("li"));
  let problem = "";
  try {
    await post(path, { id });
    announce(`${done} dead letter ${id}`);
  } catch (error) {
    problem = error.message;
  }
  await load();
  const card = [...list.querySelectorAll("li")][Math.max(0, Math.min(place, list.querySelectorAll("li").length - 1))];
  if (problem) {
    button.disabled = false;
    card?.append(el("p", { className: "problem", role: "alert" }, problem));
  }
  // What had the focus may be gone.
  (card?.querySelector("button") ?? $("letters")).focus();
}
