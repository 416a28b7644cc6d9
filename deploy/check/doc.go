// Package check holds the tests of what lies in deploy against the formats'
// own libraries: Docker's, Compose's, Kubernetes', Kustomize's and Helm's. It is a module
// of its own, so that the worker's module does not depend on them.
package check
