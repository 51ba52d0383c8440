package keycmd

import (
	"encoding/json"
	"strings"
	"testing"

	"flota/internal/fault"
)

func TestGetPutDel(t *testing.T) {
	fresh(t)
	ok(t, "", "put", "get/color", "blue")
	wants(t, "blue\n", "get", "/get/color")
	wants(t, "blue", "get", "-n", "/get/color/")
	wants(t, "/get/color: blue\n", "get", "--prefix", "get")
	fails(t, fault.NotFound, "", "get", "/get/nothing")
	fails(t, fault.NotFound, "", "get", "--prefix", "/ge")
	fails(t, fault.Invalid, "", "get", "/")
	ok(t, "two\nlines\n", "put", "/get/text")
	wants(t, "two\nlines\n", "get", "-n", "/get/text")
	ok(t, "", "put", "/get", "itself")
	ok(t, "", "put", "/getting", "not below")
	wants(t, "/get: itself\n/get/color: blue\n/get/text: \"two\\nlines\\n\"\n", "get", "--prefix", "/get")
	var it Item
	if err := json.Unmarshal([]byte(ok(t, "", "--json", "get", "/get/color")), &it); err != nil || *it.Value != "blue" || it.Version != 1 {
		t.Errorf("%+v, %v", it, err)
	}
	ok(t, "\xff\x00", "put", "/get/bin", "-")
	if got := ok(t, "", "--json", "get", "/get/bin"); !strings.Contains(got, `"base64": "/wA="`) || strings.Contains(got, `"value"`) {
		t.Error(got)
	}
	wants(t, "\xff\x00", "get", "-n", "/get/bin")
	ok(t, "", "del", "/get/color", "/get/bin")
	fails(t, fault.NotFound, "", "del", "/get/color")
	ok(t, "", "del", "--prefix", "/get")
	wants(t, "not below\n", "get", "/getting")
	fails(t, fault.Invalid, "", "del", "--prefix", "/") // nobody to ask
	wants(t, "not below\n", "get", "/getting")
}

func TestPutConditions(t *testing.T) {
	fresh(t)
	ok(t, "", "put", "--if-absent", "/if/a", "1")
	fails(t, fault.Conflict, "", "put", "--if-absent", "/if/a", "2")
	ok(t, "", "put", "--if-value", "1", "/if/a", "2")
	fails(t, fault.Conflict, "", "put", "--if-value", "1", "/if/a", "3")
	fails(t, fault.Conflict, "", "put", "--if-value", "", "/if/b", "3")
	var it Item
	_ = json.Unmarshal([]byte(ok(t, "", "--json", "put", "/if/a", "4")), &it)
	ok(t, "", "put", "--if-revision", itoa(it.Revision), "/if/a", "5")
	fails(t, fault.Conflict, "", "put", "--if-revision", itoa(it.Revision), "/if/a", "6")
	wants(t, "5\n", "get", "/if/a")
	_ = json.Unmarshal([]byte(ok(t, "", "--json", "put", "--ttl", "1min", "/if/ttl", "x")), &it)
	if ttl, err := etcd(t).TimeToLive(t.Context(), leaseOf(it)); err != nil || ttl.GrantedTTL != 60 {
		t.Errorf("%+v, %v", ttl, err)
	}
	fails(t, fault.Invalid, strings.Repeat("x", 2<<20), "put", "/if/big")
	fails(t, fault.Invalid, "", "put", "--file", "f", "/if/a", "x")
}

func TestLists(t *testing.T) {
	c := fresh(t)
	for _, key := range []string{"/ls/a", "/ls/a/b", "/ls/dir/x", "/ls/dir/y/z", "/ls/_lock/1", "/ls/dir/_h", "/lsx"} {
		ok(t, "", "put", key, "v")
	}
	_, _ = c.Put(t.Context(), "/ls/empty/", "") // as v2 keeps an empty directory
	_, _ = c.Put(t.Context(), "ls-no-slash", "v")
	wants(t, "/ls/a\n/ls/a/\n/ls/dir/\n/ls/empty/\n", "ls", "/ls")
	wants(t, "/ls/a\n/ls/a/b\n/ls/dir/x\n/ls/dir/y/z\n", "ls", "-r", "ls/")
	wants(t, "/ls/_lock/\n/ls/a\n/ls/a/\n/ls/dir/\n/ls/empty/\n", "ls", "-a", "/ls")
	wants(t, "ls-no-slash\n", "ls", "--raw", "ls-")
	wants(t, "[\n  \"/ls/dir/_h\",\n  \"/ls/dir/x\",\n  \"/ls/dir/y/\"\n]\n", "--json", "ls", "-a", "/ls/dir")
	fails(t, fault.NotFound, "", "ls", "/nowhere")
	var out, errs buffer
	if err := run(t.Context(), "", &out, &errs, "ls"); err != nil || !strings.Contains(errs.String(), "without a leading /") {
		t.Errorf("%v: %q", err, errs.String())
	}
	if strings.Contains(out.String(), "ls-no-slash") || !strings.Contains(out.String(), "/ls/\n/lsx\n") {
		t.Errorf("%q", out.String())
	}
	wants(t, `/ls
├── a/: v
│   └── b: v
├── dir/
│   ├── x: v
│   └── y/
│       └── z: v
└── empty/
`, "tree", "/ls")
	fails(t, fault.Invalid, "", "--json", "tree", "/ls") // a is both
	wants(t, "{\n  \"x\": \"v\",\n  \"y\": {\n    \"z\": \"v\"\n  }\n}\n", "--json", "tree", "/ls/dir")
}

// A listing of more keys than come at once is of one moment.
func TestPages(t *testing.T) {
	c := fresh(t)
	all := map[string]string{}
	for i := range 2*pageSize + 7 {
		all["/pages/"+itoa(int64(100_000+i))] = itoa(int64(i))
	}
	b, _ := json.Marshal(all)
	ok(t, string(b), "import", "--yes", "-")
	if r, err := c.Get(t.Context(), "/pages/100000"); err != nil || r.Count != 1 {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(ok(t, "", "export", "/pages")), &back); err != nil || len(back) != len(all) {
		t.Errorf("%d, %v", len(back), err)
	}
	ok(t, "", "del", "--prefix", "/pages")
}
