// Shows one grant and its history, and has it refreshed.
import { get, grantsPage, lettersPage, post } from "./api.js";
import { ask } from "./ask.js";
import { $, announce, el, facts, link, note, show, state, table, time } from "./dom.js";
import { lastError } from "./grants.js";
import { part } from "./parts.js";

let id;
let updateAll;
let shown;
let busy = false;

const refresh = el("button", { type: "button", className: "main" }, "Refresh now");
const revive = el("button", { type: "button" }, "Try once more");

export function open(page) {
  id = page.id;
  updateAll = page.update;
  $("grant-buttons").append(revive, refresh);
  revive.hidden = refresh.hidden = true;
  refresh.addEventListener("click", () => act("refresh", "Refresh this grant now?",
    `The refresh token of ${shown.user} at ${broker(shown)} is presented to Mesh before it is due. A refresh that is under way elsewhere is left alone.`, "Refresh now", refresh));
  revive.addEventListener("click", () => act("revive", "Try this grant once more?",
    `The grant of ${shown.user} at ${broker(shown)} has expired. Its refresh token is presented to Mesh once more; if it is refused, the grant expires again.`, "Try once more", revive));
}

const broker = (g) => g.brokerName || g.broker;
const path = () => `grants/${encodeURIComponent(id)}`;

// update reads the grant and its history side by side: either is shown without the other.
export async function update() {
  await Promise.all([
    get(path()).then(render, (error) => part("grant-note", { problem: error.message }, 0)),
    get(`${path()}/history`).then(past, (error) => part("history-note", { problem: error.message }, 0)),
  ]);
}

const justNow = () => new Date().toISOString();

function render(g) {
  const first = !shown;
  shown = g;
  const at = justNow();
  part("grant-note", { at }, at, g.whyNot ? `Can't be refreshed now: ${g.whyNot}.` : "");
  const title = `Grant of ${g.user} at ${broker(g)}`;
  if ($("grant-title").textContent !== title) $("grant-title").textContent = title;
  document.title = `${title} – Latchkey`;
  refresh.hidden = false;
  refresh.disabled = busy || Boolean(g.whyNot);
  revive.hidden = !g.revivable;
  revive.disabled = busy;
  show($("grant"), facts([
    ["State", el("span", {}, state(g.state), g.reason ? ` ${g.reason}` : "")],
    ["Last error", g.lastError ? el("span", {}, lastError(g.lastError), g.lastError.errorHash ? `, errorHash ${g.lastError.errorHash}` : "") : "none since the last refresh that succeeded"],
    ["Failed tries in a row", `${g.tries}${g.waits ? `, put off ${g.waits} times` : ""}`],
    ["Next action", g.due ? el("span", {}, `${g.due.action}, `, time(g.due.at), g.due.scheduled ? "" : ", not in the schedule yet") : "none"],
    ...(g.refreshFailing ? [["Refreshes fail", el("span", {}, g.refreshFailing.reason, ...(g.refreshFailing.since ? [", since ", time(g.refreshFailing.since)] : []))]] : []),
    ...(g.refused ? [["Reported as refused", el("span", {}, `version ${g.refused.version}, `, time(g.refused.at))]] : []),
    ...(g.unknownSince ? [["Outcome unknown since", time(g.unknownSince)]] : []),
    ...(g.lease ? [["Lease", el("span", {}, `${g.lease.owner} until `, time(g.lease.until))]] : []),
    ["Access token ends", end(g.accessToken)],
    ["Refresh token ends", end(g.refreshToken)],
    ["User", el("span", {}, link(grantsPage({ user: g.user }), g.user), " · ", link(lettersPage({ user: g.user }), "dead letters"))],
    ["Broker", el("span", {}, g.brokerName && g.brokerName !== g.broker ? `${g.brokerName} (` : "", link(grantsPage({ broker: g.broker }), g.broker), g.brokerName && g.brokerName !== g.broker ? ")" : "")],
    ["Accounts", g.accounts.map((a) => (a.name && a.name !== a.id ? `${a.name} (${a.id})` : a.id)).join(", ") || "not known yet"],
    ...(g.removal ? [["Removal at Mesh", el("span", {}, "next try ", time(g.removal.due), `, ${g.removal.tries} so far`)]] : []),
    ["Connected", time(g.connectedAt)],
    ["Version", String(g.version)],
    ["Id", el("span", { className: "id" }, g.id)],
  ]));
  if (first) announce(title);
}

function end(life) {
  if (!life) return "no token";
  if (!life.expiresAt) return "never";
  return el("span", {}, time(life.expiresAt), life.assumed ? " (assumed)" : "");
}

function past({ events, more }) {
  const at = justNow();
  part("history-note", { at }, at, more ? "There are more events than are shown." : "The events that the stream still holds, the newest first.");
  show($("history"), events.length === 0 ? note("There is no event of this grant.") : table("History, newest first",
    [{ title: "When" }, { title: "Event" }, { title: "Reason" }, { title: "Access token until" }, { title: "Version", number: true }],
    events.map((e) => [time(e.at), e.kind, [e.reason, e.error].filter(Boolean).join(", ") || "–", time(e.expiresAt), String(e.version)])));
}

// act has the grant refreshed, by one of the calls that do so.
async function act(call, title, text, verb, button) {
  if (!await ask(title, text, verb)) return;
  busy = true;
  refresh.disabled = revive.disabled = true;
  tell("Refreshing…", "");
  try {
    const answer = await post(`${path()}/${call}`);
    tell(answer.text, answer.refreshed ? "good" : "bad");
  } catch (error) {
    tell(error.message, "problem");
  }
  busy = false;
  await updateAll();
  (button.disabled || button.hidden ? $("grant-title") : button).focus();
}

function tell(text, tone) {
  $("grant-result").className = tone;
  $("grant-result").textContent = text;
}
