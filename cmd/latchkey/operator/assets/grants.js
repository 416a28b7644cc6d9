// Finds a user's grants, shows one of them, and has it refreshed.
import { get, post } from "./api.js";
import { ask } from "./ask.js";
import { $, announce, el, facts, fill, state, table, time } from "./dom.js";

const found = $("found");
const details = $("details");

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  find($("user").value);
});

// find shows the grants of a user.
export async function find(user) {
  details.replaceChildren();
  found.replaceChildren(el("p", { className: "note" }, "Looking…"));
  try {
    const answer = await get(`api/grants?user=${encodeURIComponent(user)}`);
    list(user, answer);
  } catch (error) {
    fail(found, error);
  }
}

function list(user, { grants, more }) {
  const count = `${grants.length + more} ${grants.length + more === 1 ? "grant" : "grants"} of ${user}`;
  announce(count);
  fill(found,
    el("h3", {}, count),
    el("ul", { className: "cards" }, ...grants.map((g) => {
      const open = el("button", { type: "button", ariaLabel: `Open the grant at ${g.brokerName || g.broker}` }, "Open");
      open.addEventListener("click", () => showGrant(g.id));
      return el("li", {},
        el("div", {},
          el("p", {}, el("strong", {}, g.brokerName || g.broker), " ", state(g.state), g.reason ? ` ${g.reason}` : ""),
          el("p", { className: "note" }, g.accounts.map((a) => a.name || a.id).join(", ") || "accounts not known yet")),
        el("p", { className: "buttons" }, open));
    })),
    more > 0 ? el("p", { className: "note" }, `${more} older ones are not shown.`) : null);
}

// showGrant opens a grant and moves the reader there.
export async function showGrant(id) {
  details.replaceChildren(el("p", { className: "note" }, "Opening…"));
  try {
    const [grant, history] = await Promise.all([get(`api/grants/${encodeURIComponent(id)}`), events(id)]);
    render(grant, history);
  } catch (error) {
    fail(details, error);
    return;
  }
  details.querySelector("h3").focus();
}

const events = (id) => get(`api/grants/${encodeURIComponent(id)}/history`).catch((error) => ({ error }));

function render(g, history) {
  const result = el("p", { role: "status" });
  const refresh = el("button", { type: "button", className: "main", disabled: Boolean(g.whyNot) }, "Refresh now");
  refresh.addEventListener("click", () => refreshNow(g, refresh, result));
  const revive = el("button", { type: "button" }, "Try once more");
  revive.addEventListener("click", () => act(g, revive, result, "revive", "Try this grant once more?",
    `The grant of ${g.user} at ${g.brokerName || g.broker} has expired. Its refresh token is presented to Mesh once more; if it is refused, the grant expires again.`, "Try once more"));
  const close = el("button", { type: "button" }, "Close");
  close.addEventListener("click", () => {
    details.replaceChildren();
    $("user").focus();
  });
  details.replaceChildren(el("div", { className: "details" },
    el("h3", { tabIndex: -1 }, `Grant of ${g.user} at ${g.brokerName || g.broker}`),
    facts([
      ["Id", el("span", { className: "id" }, g.id)],
      ["User", g.user],
      ["Broker", g.brokerName && g.brokerName !== g.broker ? `${g.brokerName} (${g.broker})` : g.broker],
      ["State", el("span", {}, state(g.state), g.reason ? ` ${g.reason}` : "")],
      ["Accounts", g.accounts.map((a) => (a.name && a.name !== a.id ? `${a.name} (${a.id})` : a.id)).join(", ") || "not known yet"],
      ["Version", String(g.version)],
      ["Connected", time(g.connectedAt)],
      ["Access token ends", end(g.accessToken)],
      ["Refresh token ends", end(g.refreshToken)],
      ["Next action", g.due ? el("span", {}, `${g.due.action}, `, time(g.due.at), g.due.scheduled ? "" : ", not in the schedule yet") : "none"],
      ["Failed tries in a row", `${g.tries}${g.waits ? `, put off ${g.waits} times` : ""}`],
      ...(g.refreshFailing ? [["Refreshes fail", el("span", {}, g.refreshFailing.reason, ...(g.refreshFailing.since ? [", since ", time(g.refreshFailing.since)] : []))]] : []),
      ...(g.refused ? [["Reported as refused", el("span", {}, `version ${g.refused.version}, `, time(g.refused.at))]] : []),
      ...(g.unknownSince ? [["Outcome unknown since", time(g.unknownSince)]] : []),
      ...(g.lastError ? [["Last error", el("span", {}, time(g.lastError.at), ` ${g.lastError.class}: ${g.lastError.detail}`,
        g.lastError.errorType ? `, errorType ${g.lastError.errorType}` : "", g.lastError.errorHash ? `, errorHash ${g.lastError.errorHash}` : "")]] : []),
      ...(g.lease ? [["Lease", el("span", {}, `${g.lease.owner} until `, time(g.lease.until))]] : []),
    ]),
    g.whyNot ? el("p", { className: "note" }, `Can't be refreshed now: ${g.whyNot}.`) : null,
    el("p", { className: "buttons" }, close, g.revivable ? revive : null, refresh),
    result,
    past(history)));
}

function end(life) {
  if (!life) return "no token";
  if (!life.expiresAt) return "never";
  return el("span", {}, time(life.expiresAt), life.assumed ? " (assumed)" : "");
}

function past(history) {
  if (history.error) return el("p", { className: "problem" }, `Its history can't be shown: ${history.error.message}`);
  if (history.events.length === 0) return el("p", { className: "note" }, "The stream holds no events of this grant.");
  return el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "History of the grant" },
    table("History, newest first", [{ title: "When" }, { title: "Event" }, { title: "Version", number: true }, { title: "Access token until" }, { title: "Reason" }],
      history.events.map((e) => [time(e.at), e.kind, String(e.version), time(e.expiresAt), e.reason ?? ""]), false),
    history.more ? el("p", { className: "note" }, "There are more events than are shown.") : null);
}

function refreshNow(g, button, result) {
  return act(g, button, result, "refresh", "Refresh this grant now?",
    `The refresh token of ${g.user} at ${g.brokerName || g.broker} is presented to Mesh before it is due. A refresh that is under way elsewhere is left alone.`, "Refresh now");
}

// act has a grant refreshed, by one of the calls that do so.
async function act(g, button, result, call, title, text, verb) {
  const yes = await ask(title, text, verb);
  if (!yes) return;
  button.disabled = true;
  result.className = "";
  result.textContent = "Refreshing…";
  try {
    const answer = await post(`api/grants/${encodeURIComponent(g.id)}/${call}`);
    const [grant, history] = await Promise.all([get(`api/grants/${encodeURIComponent(g.id)}`), events(g.id)]);
    render(grant, history);
    tell(answer.text, answer.refreshed ? "good" : "bad");
  } catch (error) {
    button.disabled = false;
    result.className = "problem";
    result.textContent = error.message;
    button.focus();
  }
}

// tell words an outcome in the details as they now are.
function tell(text, tone) {
  const result = details.querySelector("[role=status]");
  result.className = tone;
  result.textContent = text;
  announce(text);
  details.querySelector("h3").focus();
}

function fail(where, error) {
  where.replaceChildren(el("p", { className: "problem", role: "alert" }, error.message));
}
