import "./prewarm.js";
import { createLink } from "@meshconnect/web-link-sdk";
import { call, Refused } from "./backend.js";

const retryMilliseconds = 2000;

// openLink shows Link: for connecting an account or, given the tokens of accounts
// that are connected, at its transfer step. Tokens live in these variables only.
// Mind onEvent, which is not used here: its integrationConnected event holds the
// tokens too, so it must not go to analytics as it is.
async function openLink(accessTokens, { say, exit }) {
  const { linkToken } = await call("/api/link-token");
  const options = {
    accessTokens,
    onIntegrationConnected: (payload) => store(payload, say),
    onTransferFinished: ({ amount, symbol }) => say(`Sent ${amount} ${symbol}.`),
    onExit: (error) => {
      options.accessTokens = undefined; // the SDK keeps its options for longer
      exit(error);
    },
  };
  createLink(options).openLink(linkToken);
}

export const connect = (callbacks) => openLink(undefined, callbacks);

// transfer asks for the tokens at the moment they are needed, never earlier.
export async function transfer(callbacks) {
  const { accessTokens } = await call("/api/tokens");
  await openLink(accessTokens, callbacks);
}

// store hands what Link gave to the backend, unchanged and at once. Nobody else
// has it, so only an answer ends the attempts.
async function store(payload, say) {
  const received = performance.now(); // a clock that nobody sets
  say("Being stored…");
  for (;;) {
    try {
      return await call("/api/connected", { payload, ageMilliseconds: Math.round(performance.now() - received) });
    } catch (error) {
      if (!(error instanceof Refused && error.temporary)) {
        return say("This connection could not be stored. Please connect again.");
      }
      say("Not stored yet, trying again. Please keep this page open.");
      await new Promise((resolve) => setTimeout(resolve, retryMilliseconds));
    }
  }
}
