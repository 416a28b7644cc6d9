// Package meshsim simulates Mesh and the institutions behind it: the part of Mesh's API
// that renews, removes and uses tokens, over HTTP, with a ledger of every token's life.
//
// [Server.Connect] issues tokens the way a user's browser receives them. Tokens
// that renew each other form a chain. How a chain behaves is its [Institution]:
// a refresh token is normally used once, a replaced one that comes back kills the
// chain, and a grace window can soften that.
//
// [Server.Ledger] is a snapshot of what happened. A refresh token presented after it was
// replaced is a [Reuse]; the client is to blame if the answer that replaced it reached the
// client. The ledger, the journal on disk and every error hold fingerprints (SHA-256),
// never tokens, which derive from the seed.
//
// [Server.Inject] makes requests go wrong with a count or a probability, [Server.Script]
// sets what the next refreshes of one account meet. An [Action] happens before the
// institution is asked or after it, which a client cannot see in the answer.
//
// Mesh's contract allows many forms of an answer. [Dialects] is the table of those that
// the simulator speaks; an [Institution] names the ones it uses, [Server.Speak] makes a
// broker type use some for a while.
package meshsim

//go:generate go test . -run TestDialectsAreDocumented -update
