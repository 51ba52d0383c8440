package fleet

import (
	_ "embed" // for the discovery document
	"net/http"
	"strings"
)

// document describes the API in the form of Google's discovery service, from which fleet's Go client was made.
//
//go:embed discovery.json
var document string

// discovery answers GET discovery. Its addresses are those that the client used.
func (h *handler) discovery(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		Fail(w, http.StatusBadRequest, "only HTTP GET supported against this resource")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = strings.NewReplacer("$ENDPOINT", endpointOf(r)).WriteString(w, document)
}

// endpointOf is how the client reached us: http and the Host that it sent. What could not stand in a JSON string is left out.
func endpointOf(r *http.Request) string {
	keep := func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".:-_[]", c) {
			return c
		}
		return -1
	}
	return "http://" + strings.Map(keep, r.Host)
}
