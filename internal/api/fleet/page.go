package fleet

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
)

// pageLimit is how many things one page has: fleet's token_limit.
const pageLimit = 100

// token names a page of a list: which one, and how many things the pages have. Pages count from 1.
type token struct{ limit, page uint16 }

// tokenSize is the length of a token before it is encoded.
const tokenSize = 4

// parseToken reads a token: URL-safe base64 of the limit and the page, both little-endian. More bytes than that are ignored, as in fleet.
func parseToken(s string) (token, error) {
	b, err := base64.URLEncoding.DecodeString(s)
	if err != nil {
		return token{}, err
	}
	if len(b) < tokenSize {
		return token{}, errors.New("unexpected EOF")
	}
	t := token{limit: binary.LittleEndian.Uint16(b), page: binary.LittleEndian.Uint16(b[2:])}
	if t.limit != pageLimit {
		return token{}, fmt.Errorf("token limit must be %d", pageLimit)
	}
	if t.page == 0 {
		return token{}, errors.New("token page must be greater than zero")
	}
	return t, nil
}

// String encodes the token.
func (t token) String() string {
	b := binary.LittleEndian.AppendUint16(nil, t.limit)
	return base64.URLEncoding.EncodeToString(binary.LittleEndian.AppendUint16(b, t.page))
}

// pageOf reads which page the request asks for; the first without a token.
func pageOf(r *http.Request) (token, error) {
	values := r.URL.Query()["nextPageToken"]
	switch len(values) {
	case 0:
		return token{limit: pageLimit, page: 1}, nil
	case 1:
		return parseToken(values[0])
	}
	return token{}, errors.New("too many values for page token")
}

// cut gives the page of all that t names, and the token of the next; "" if there is none. Unlike fleet it gives no token for an
// empty page after a full last one, and counts in int, so that lists do not start over after 65,535 things. The last page that a
// token can name is the 65,535th.
func cut[T any](all []T, t token) (page []T, next string) {
	from := (int(t.page) - 1) * int(t.limit)
	if from >= len(all) {
		return nil, ""
	}
	to := min(from+int(t.limit), len(all))
	if to < len(all) && t.page < 1<<16-1 {
		next = token{limit: t.limit, page: t.page + 1}.String()
	}
	return all[from:to], next
}
