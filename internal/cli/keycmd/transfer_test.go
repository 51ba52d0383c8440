package keycmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"flota/internal/fault"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func leaseOf(it Item) clientv3.LeaseID { return clientv3.LeaseID(it.Lease) }

func TestImport(t *testing.T) {
	fresh(t)
	ok(t, "", "put", "/imp/same", "1")
	ok(t, "", "put", "/imp/other", "old")
	ok(t, "", "put", "/imp/gone", "x")
	file := filepath.Join(t.TempDir(), "keys.json")
	text := `{"imp": {"same": 1, "other": "new", "deep": {"er": true}}, "/imp/bin": {"$base64": "/w=="}}`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	diff := "+ /imp/bin: \"\\xff\"\n+ /imp/deep/er: true\n~ /imp/other: old -> new\n"
	wants(t, diff, "import", "--dry-run", file)
	fails(t, fault.Invalid, "", "import", file) // nobody to ask
	wants(t, "old\n", "get", "/imp/other")
	wants(t, diff, "import", "--yes", file)
	wants(t, "", "import", "--yes", file)
	wants(t, "{\n  \"/imp/bin\": {\n    \"$base64\": \"/w==\"\n  },\n  \"/imp/deep/er\": \"true\",\n  \"/imp/gone\": \"x\",\n  \"/imp/other\": \"new\",\n  \"/imp/same\": \"1\"\n}\n", "export", "imp")
	wants(t, "{\n  \"er\": \"true\"\n}\n", "export", "--tree", "--relative", "/imp/deep")

	// Elsewhere, and back as it was.
	copied := ok(t, "", "export", "--relative", "/imp")
	ok(t, copied, "import", "--yes", "--prefix", "/imp2", "-")
	if got := ok(t, "", "export", "--relative", "/imp2"); got != copied {
		t.Errorf("copied as %s", got)
	}
	if got := ok(t, `{"only": "this"}`, "--json", "import", "--yes", "--replace", "--prefix", "/imp2", "-"); got == "" {
		t.Error("no JSON")
	}
	wants(t, "/imp2/only: this\n", "get", "--prefix", "/imp2")

	for _, bad := range []string{"", "[]", "{}", `{"a": null}`, `{"a": [1]}`, `{"": "x"}`, `{"/": "x"}`, `{"a":"1"} x`, `{"a/b": "1", "a": {"b": "2"}}`, `{"a": {"$base64": "?"}}`} {
		fails(t, fault.Invalid, bad, "import", "--yes", "--prefix", "/imp3", "-")
	}
	fails(t, fault.NotFound, "", "import", "--yes", "/no/such/file")
	fails(t, fault.NotFound, "", "get", "--prefix", "/imp3")
}

// Whatever the keys are, export and import bring them back.
func TestExportComesBack(t *testing.T) {
	k := &keys{}
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringMatching(`[a-z$é"]{1,3}`)
		key := rapid.Map(rapid.SliceOfN(part, 1, 3), func(s []string) string {
			out := ""
			for _, p := range s {
				out += "/" + p
			}
			return out
		})
		all := rapid.MapOf(key, rapid.SliceOfN(rapid.Byte(), 0, 5)).Draw(t, "keys")
		var kvs []*mvccpb.KeyValue
		for name, v := range all {
			kvs = append(kvs, &mvccpb.KeyValue{Key: []byte(name), Value: v})
		}
		for _, tree := range []bool{false, true} {
			v, err := k.exported("/", kvs, tree, false)
			if err != nil {
				if tree && fault.Is(err, fault.Invalid) {
					continue // a key with a value and keys below it
				}
				t.Fatal(err)
			}
			var out buffer
			if err := (&keys{Env: Env{Out: &out}}).printJSON(v); err != nil {
				t.Fatal(err)
			}
			back, err := k.parse([]byte(out.String()), "")
			if err != nil || len(back) != len(all) {
				t.Fatalf("tree %v: %v\n%s", tree, err, out.String())
			}
			for name, v := range all {
				if string(back[name]) != string(v) {
					t.Fatalf("%s is %q, was %q", name, back[name], v)
				}
			}
		}
	})
}

// An import that somebody interferes with stops and changes nothing more.
func TestImportConflict(t *testing.T) {
	c := fresh(t)
	k := &keys{Env: Env{Err: &buffer{}}, patience: span(defaultPatience)}
	want := map[string][]byte{}
	for i := range maxOps + 50 {
		want[fmt.Sprintf("/conf/%03d", i)] = []byte("x")
	}
	changes, err := k.compare(t.Context(), c, want, importOptions{})
	if err != nil || len(changes) != len(want) {
		t.Fatal(len(changes), err)
	}
	ok(t, "", "put", "/conf/120", "mine")
	if done, err := k.apply(t.Context(), c, changes); done != maxOps || !fault.Is(err, fault.Conflict) {
		t.Errorf("%d, %v", done, err)
	}
	wants(t, "mine\n", "get", "/conf/120")
	ok(t, "", "del", "--prefix", "/conf")
}
