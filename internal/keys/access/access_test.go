package access_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
	"flota/internal/keys/access"
	"flota/internal/keys/token"
	"flota/internal/store"
	"flota/internal/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is an Access over a store in memory whose calls are counted.
type bed struct {
	*access.Access
	st    *store.Store
	kv    *mem.Faulty
	calls *int
}

// inBubble runs a story on virtual time.
func inBubble(t *testing.T, story func(t *testing.T, b bed)) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		kv := m.Client()
		defer kv.Close()
		var mu sync.Mutex
		calls := 0
		kv.Before(func(mem.Call) error {
			mu.Lock()
			defer mu.Unlock()
			calls++
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer func() { cancel(); wg.Wait() }()
		b := bed{Access: access.New(store.New(kv), nil), st: store.New(m), kv: kv, calls: &calls}
		wg.Go(func() { _ = b.Run(ctx) })
		synctest.Wait()
		story(t, b)
	})
}

// make stores a token and gives its text.
func (b bed) make(t *testing.T, n byte, expires time.Time) string {
	t.Helper()
	tok, text := token.Make([token.IDBytes]byte{n}, [token.SecretBytes]byte{n})
	tok.Prefixes, tok.Expires = []token.Prefix{{Path: "/shop"}}, expires
	if err := b.st.Tokens.Create(t.Context(), tok.ID, tok); err != nil {
		t.Fatal(err)
	}
	return text
}

// wants checks what credentials come to.
func (b bed) wants(t *testing.T, credentials string, kind fault.Kind) {
	t.Helper()
	g, err := b.Check(t.Context(), credentials)
	if fault.KindOf(err) != kind || (err == nil) != g.Allows([]byte("/shop/color"), nil, false) || g.All {
		t.Errorf("%.14s: %v, %+v", credentials, err, g)
	}
}

func TestTokensLive(t *testing.T) {
	inBubble(t, func(t *testing.T, b bed) {
		first := b.make(t, 1, time.Time{})
		second := b.make(t, 2, time.Now().Add(time.Hour))
		synctest.Wait()
		before := *b.calls
		for range 1000 {
			b.wants(t, first, fault.Internal) // no error
		}
		b.wants(t, second, fault.Internal)
		b.wants(t, "0200000000:"+second, fault.Internal)
		b.wants(t, "", fault.Denied)
		b.wants(t, "nonsense", fault.Denied)
		_, unknown := token.Make([token.IDBytes]byte{9}, [token.SecretBytes]byte{1})
		b.wants(t, unknown, fault.Denied)
		_, wrong := token.Make([token.IDBytes]byte{1}, [token.SecretBytes]byte{2})
		b.wants(t, wrong, fault.Denied)
		if *b.calls != before {
			t.Errorf("checks made %d calls of the store", *b.calls-before)
		}
		time.Sleep(time.Hour) // it expires by itself
		b.wants(t, second, fault.Denied)
		b.wants(t, first, fault.Internal)
		if _, err := b.st.Tokens.Delete(t.Context(), "0100000000"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // no time passes
		b.wants(t, first, fault.Denied)
	})
}

// A machine without the store goes on with what it knew, and learns what it missed within a second and a half.
func TestTokensOutlastTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, b bed) {
		first := b.make(t, 1, time.Time{})
		synctest.Wait()
		b.kv.Cut(mem.Refused)
		if _, err := b.st.Tokens.Delete(t.Context(), "0100000000"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b.wants(t, first, fault.Internal)
		b.kv.Cut(mem.None)
		time.Sleep(1500 * time.Millisecond)
		b.wants(t, first, fault.Denied)
	})
}

func TestNothingIsAllowedBeforeTheTokensAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		a := access.New(store.New(m), nil)
		_, text := token.Make([token.IDBytes]byte{1}, [token.SecretBytes]byte{1})
		if _, err := a.Check(t.Context(), text); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	})
}

func TestDamagedTokensOpenNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b bed) {
		text := b.make(t, 1, time.Time{})
		moved, _, err := b.st.Tokens.Get(t.Context(), "0100000000", store.Read{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.wants(t, text, fault.Internal)
		for key, value := range map[string][]byte{"0100000000": []byte("{"), "0500000000": nil} {
			op := store.Op{Key: b.st.Tokens.Prefix() + key, Value: value}
			if value == nil { // another token's record
				op = b.st.Tokens.PutOp(key, moved.Value, 0)
			}
			if _, _, err := b.st.KV.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		b.wants(t, text, fault.Denied)
	})
}
