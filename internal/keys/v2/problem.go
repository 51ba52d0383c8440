package v2

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// code is a number that v2 clients know an error by. Source: etcd's v2 error list; the statuses and causes were recorded from 3.4.23.
type code int

// The codes that are sent.
const (
	keyNotFound     code = 100
	testFailed      code = 101
	notFile         code = 102
	notDir          code = 104
	nodeExist       code = 105
	rootReadOnly    code = 107
	dirNotEmpty     code = 108
	prevValueNeeded code = 201
	ttlNaN          code = 202
	indexNaN        code = 203
	invalidField    code = 209
	invalidForm     code = 210
	refreshValue    code = 211
	refreshTTL      code = 212
	internal        code = 300
	indexCleared    code = 401
)

// meaning is what a code is sent with.
var meaning = map[code]struct {
	status  int
	message string
}{
	keyNotFound:     {http.StatusNotFound, "Key not found"},
	testFailed:      {http.StatusPreconditionFailed, "Compare failed"},
	notFile:         {http.StatusForbidden, "Not a file"},
	notDir:          {http.StatusBadRequest, "Not a directory"},
	nodeExist:       {http.StatusPreconditionFailed, "Key already exists"},
	rootReadOnly:    {http.StatusBadRequest, "Root is read only"},
	dirNotEmpty:     {http.StatusForbidden, "Directory not empty"},
	prevValueNeeded: {http.StatusBadRequest, "PrevValue is Required in POST form"},
	ttlNaN:          {http.StatusBadRequest, "The given TTL in POST form is not a number"},
	indexNaN:        {http.StatusBadRequest, "The given index in POST form is not a number"},
	invalidField:    {http.StatusBadRequest, "Invalid field"},
	invalidForm:     {http.StatusBadRequest, "Invalid POST form"},
	refreshValue:    {http.StatusBadRequest, "Value provided on refresh"},
	refreshTTL:      {http.StatusBadRequest, "A TTL must be provided on refresh"},
	internal:        {http.StatusInternalServerError, "Raft Internal Error"},
	indexCleared:    {http.StatusBadRequest, "The event in requested index is outdated and cleared"},
}

// problem is an error as v2 clients are told it.
type problem struct {
	Code    code   `json:"errorCode"`
	Message string `json:"message"`
	Cause   string `json:"cause,omitempty"`
	Index   uint64 `json:"index"` // the store's index that the error holds for; 0 when the store was not asked
	status  int
	err     error // of the store
}

func (p *problem) Error() string { return fmt.Sprintf("%d: %s (%s)", p.Code, p.Message, p.Cause) }

func refuse(c code, index int64, cause string) *problem {
	m := meaning[c]
	return &problem{Code: c, Message: m.message, Cause: cause, Index: uint64(index), status: m.status}
}

// with gives the problem another status.
func (p *problem) with(status int) *problem {
	p.status = status
	return p
}

// failed is what is said when the store gives an error. The outcome of a write is then not known.
func failed(err error) *problem {
	p := refuse(internal, 0, cause(err))
	if strings.HasPrefix(p.Cause, "etcdserver: request is too large") {
		p = refuse(invalidField, 0, p.Cause)
	}
	p.err = err
	return p
}

func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Etcd-Index", strconv.FormatUint(p.Index, 10))
	w.WriteHeader(p.status)
	b, _ := json.Marshal(p)         // of strings and numbers: cannot fail
	_, _ = w.Write(append(b, '\n')) // who is not there any more need not be told
}
