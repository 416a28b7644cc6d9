// A stand-in for Mesh's Link that speaks with the SDK as Link does. It talks to
// one page only, and hears only that page.
const pageOrigin = document.body.dataset.pageOrigin;
const tell = (type, payload) => parent.postMessage({ type, payload }, pageOrigin);
const element = (id) => document.getElementById(id);

let accounts = [];
let step = "choose";

function show(next) {
  step = next;
  for (const id of ["choose", "connected", "transfer", "sent"]) element(id).hidden = id !== next;
  element("problem").textContent = "";
  element(next).querySelector("h1").focus();
}

// ask goes to the server of this iframe; the query names the Link session.
async function ask(path, body) {
  const response = await fetch(path + location.search, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

async function connect(brokerType) {
  const payload = await ask("/connect", { brokerType });
  if (payload.accessToken) tell("brokerageAccountAccessToken", payload.accessToken);
  else tell("delayedAuthentication", payload.delayedAuth);
  show("connected");
}

async function send() {
  const account = accounts[new FormData(element("transfer")).get("account")];
  try {
    tell("transferFinished", await ask("/transfer", { accessToken: account.accessToken }));
  } catch (error) {
    tell("transferExecutionError", { errorMessage: error.message });
    throw error;
  }
  show("sent");
}

function chooseFrom() {
  element("from").replaceChildren(...accounts.map((account, i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "account", value: i, checked: i === 0 });
    label.append(input, ` ${account.brokerName}: ${account.accountName || account.accountId}`);
    return label;
  }));
  show("transfer");
}

// trying reports a failure where the user sees it.
const trying = (action) => action().catch((error) => { element("problem").textContent = error.message; });

addEventListener("message", (event) => {
  if (event.origin !== pageOrigin || event.source !== parent) return;
  switch (event.data?.type) {
    case "meshSDKSpecs": // the first message; the tokens, if any, follow at once
      if (accounts.length === 0) show("choose");
      break;
    case "frontAccessTokens":
      accounts = event.data.payload;
      chooseFrom();
      break;
  }
});
for (const button of document.querySelectorAll(".broker")) {
  button.addEventListener("click", () => trying(() => connect(button.value)));
}
element("transfer").addEventListener("submit", (event) => {
  event.preventDefault();
  trying(send);
});
element("done").addEventListener("click", () => tell("done", { page: "integrationConnectedPage" }));
element("finish").addEventListener("click", () => tell("done", { page: "transferExecutedPage" }));
element("close").addEventListener("click", () => tell("close", { page: step }));
tell("loaded");
