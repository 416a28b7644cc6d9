// Command sandbox runs the whole of Latchkey in one process, with nothing to install. The worker in it is the one
// that runs in production, and learns from its normal configuration where the servers are.
//
// # Test doubles
//
// They stand for what a worker needs. Tests import them too.
//
//   - engines: NATS and MongoDB, real servers embedded in the process; enginestest gives them to tests
//   - meshsim: Mesh and the institutions behind it
//   - kmssim: AWS KMS and STS
//   - http2peer: an HTTP/2 server that breaks off exchanges
//   - stack: starts engines and simulators together
//   - npmtest, clocktest: Node projects and a clock, for tests only
//
// # Programs
//
// Each is a command of this program.
//
//   - (no command): the servers and a worker, until ctrl-C; linkdemo serves its page
//   - demo: the life of a few grants, compared with the ledger of the simulated Mesh
//   - chaos: workers put through failures, and a judge
//   - bench: workers measured against the bare servers; it and chaos start them by workerprocess
//   - env: the variables that a shell needs to use a running sandbox
//   - connect: a first event, with tokens of the simulated Mesh
package main
