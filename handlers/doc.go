// Package handlers handles the messages that workers receive from NATS. A handler decodes
// a message of one kind and passes it to the store or the refresher; the router decides
// from the error whether the message is acknowledged, comes back or becomes a dead letter.
package handlers
