import { call } from "./backend.js";
import { connect, transfer } from "./link.js";

const element = (id) => document.getElementById(id);
const say = (text) => (element("status").textContent = text);

const refusals = {
  unknown_user: "Nothing is connected yet.",
  must_act: "Your institution wants you to sign in again. Please connect again.",
  expired: "Your connection has ended. Please connect again.",
  busy: "No answer in time. Please try again in a moment.",
  no_session: "This page is from an earlier visit. Please load it again.",
};

const explain = (code) => refusals[code] ?? "Something went wrong. Please try again.";

// whenClicked runs what a button does, once at a time.
function whenClicked(id, action) {
  const button = element(id);
  button.addEventListener("click", async () => {
    button.disabled = true;
    say("");
    try {
      await action();
    } catch (error) {
      say(explain(error.code));
    }
    button.disabled = false;
  });
}

const callbacks = {
  say,
  exit: (error) => {
    if (error) say(error);
    element("connect").focus();
  },
};

// listed makes one entry of a list: text only, never markup.
function listed(title, detail, warn = false) {
  const item = document.createElement("li");
  const strong = document.createElement("strong");
  strong.textContent = title;
  const small = document.createElement("span");
  small.textContent = detail;
  small.className = warn ? "warn" : "";
  item.append(strong, small);
  return item;
}

const clock = (time) => new Date(time).toLocaleTimeString();

// showAccounts lists what is connected, as the backend tells it: without tokens.
let newest = 0;
async function showAccounts() {
  const mine = ++newest;
  let accounts = [];
  let unavailable = [];
  try {
    ({ accounts, unavailable } = await call("/api/accounts"));
  } catch (error) {
    if (mine === newest) say(explain(error.code));
    return;
  }
  if (mine !== newest) return; // a later answer is on its way
  const again = unavailable.filter(({ code }) => code === "expired" || code === "must_act");
  element("accounts").replaceChildren(
    ...accounts.map((a) => listed(a.accountName || a.accountId, a.expiresAt ? `${a.brokerName}, until ${clock(a.expiresAt)}` : a.brokerName)),
    ...unavailable.map((a) => listed(a.brokerType, `${a.accountId ?? "all accounts"}, ${again.includes(a) ? "connect again" : "not available now"}`, true)),
  );
  element("none").hidden = accounts.length + unavailable.length > 0;
  element("transfer").disabled = accounts.length === 0;
  element("connect").textContent = again.length > 0 ? "Connect again" : "Connect an account";
}

const meanings = {
  "token.stored": "stored.",
  "token.refreshed": "renewed.",
  "token.expiring": "ends soon.",
  "token.expired": "ended. Please connect again.",
  "token.revoked": "forgotten.",
  "token.removal": "removed at Mesh, or not: see the reason.",
};

// listen shows what Latchkey says about this user while the page is open.
function listen() {
  const source = new EventSource("/api/events");
  source.addEventListener("open", showAccounts);
  source.addEventListener("message", ({ data }) => {
    const { kind, brokerName, brokerType, time } = JSON.parse(data);
    element("events").prepend(listed(kind, `${brokerName || brokerType}, ${clock(time)}`));
    element("heard").hidden = false;
    say(`${brokerName || brokerType}: ${meanings[kind]}`);
    showAccounts();
  });
}

whenClicked("connect", () => connect(callbacks));
whenClicked("transfer", () => transfer(callbacks));
whenClicked("leave", async () => {
  await call("/api/leave");
  location.reload();
});
element("connect").disabled = false;
listen();
