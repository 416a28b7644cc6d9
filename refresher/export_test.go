package refresher

// Uncalled is for tests of what a refresh that made no call does to the limits.
const Uncalled = uncalled
