package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// block is a fenced block of a document.
type block struct {
	lang string
	text string
	line int
	want string // the text of the output block behind it; "" if there is none
}

// readBlocks gives the blocks of a document that are to be run: sh, python and go. A block "output" behind one is what it prints.
func readBlocks(t *testing.T, path string) []block {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var in *block
	for i, line := range strings.Split(string(b), "\n") {
		lang, fence := strings.CutPrefix(line, "```")
		switch {
		case in == nil && fence:
			in = &block{lang: lang, line: i + 2}
		case fence:
			switch in.lang {
			case "sh", "python", "go":
				all = append(all, *in)
			case "output":
				all[len(all)-1].want = in.text
			}
			in = nil
		case in != nil:
			in.text += line + "\n"
		}
	}
	return all
}

// matches says whether out is as want says, in which "…" stands for anything on a line.
func matches(out, want string) bool {
	re := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), "…", ".*")
	return regexp.MustCompile("^" + re + "$").MatchString(strings.TrimSpace(out))
}

// needs are the programs that blocks call and that not every machine has.
var needs = []string{"curl", "etcdctl", "jq"}

// runnable skips a block whose programs are not here.
func runnable(t *testing.T, b block) {
	t.Helper()
	for _, n := range needs {
		if _, err := exec.LookPath(n); err != nil && b.lang == "sh" && strings.Contains(b.text, n+" ") {
			t.Skipf("%s is not installed", n)
		}
	}
	if b.lang == "python" && exec.Command("/usr/bin/python3", "-c", "import etcd").Run() != nil {
		t.Skip("python3-etcd is not installed")
	}
}

// command gives what runs a block.
func command(ctx context.Context, t *testing.T, b block, dir, root string) *exec.Cmd {
	t.Helper()
	switch b.lang {
	case "python":
		return exec.CommandContext(ctx, "/usr/bin/python3", "-c", b.text)
	case "go":
		file := filepath.Join(dir, "line"+strconv.Itoa(b.line)+".go")
		if err := os.WriteFile(file, []byte(b.text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(ctx, "go", "run", file)
		c.Dir = root
		return c
	}
	return exec.CommandContext(ctx, "sh", "-eu", "-c", b.text)
}

// TestDocs runs what the documents tell people to type, in order, on a dev cluster, and compares what they say that it prints.
func TestDocs(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for doc, inRoot := range map[string]bool{"docs/keys.md": false, "examples/reconfigure/README.md": true} {
		t.Run(filepath.Base(filepath.Dir(doc)), func(t *testing.T) {
			t.Parallel()
			dir, env, base := docCluster(t)
			for _, b := range readBlocks(t, filepath.Join(root, doc)) {
				b.text = strings.NewReplacer("127.7.0", base, "bin/", dir+"/bin/").Replace(b.text)
				t.Run("line"+strconv.Itoa(b.line), func(t *testing.T) {
					runnable(t, b)
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
					defer cancel()
					c := command(ctx, t, b, dir, root)
					if c.Dir = dir; inRoot || b.lang == "go" {
						c.Dir = root
					}
					c.Env = env
					c.WaitDelay = 5 * time.Second
					var out, errs strings.Builder
					c.Stdout, c.Stderr = &out, &errs
					if err := c.Run(); err != nil {
						t.Errorf("%s:%d: %v\n%s\n%s%s", doc, b.line, err, b.text, out.String(), errs.String())
					} else if want := strings.ReplaceAll(b.want, "127.7.0", base); want != "" && !matches(out.String(), want) {
						t.Errorf("%s:%d prints\n%s%s\nnot\n%s", doc, b.line, out.String(), errs.String(), want)
					}
				})
			}
		})
	}
}

// docCluster starts a dev cluster, of three machines unless more flags say otherwise, that ends with the test. env is the environment of commands on it.
func docCluster(t testing.TB, more ...string) (dir string, env []string, base string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fd")
	if err != nil {
		t.Fatal(err)
	}
	if base, err = freeBase(); err != nil {
		t.Fatal(err)
	}
	env = append(os.Environ(), "FLOTA_DEV_DIR="+filepath.Join(dir, "c"), "FLOTA_CONFIG="+filepath.Join(dir, "contexts.json"))
	flota := func(args ...string) {
		c := exec.Command("flota", args...)
		c.Env = env
		if b, err := c.CombinedOutput(); err != nil {
			t.Errorf("flota %q: %v\n%s", args, err, b)
		}
	}
	t.Cleanup(func() {
		flota("dev", "down")
		if left := processes(dir); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
		_ = os.RemoveAll(dir)
	})
	flota(append([]string{"dev", "up", "--base", base, "--detach"}, more...)...)
	return dir, env, base
}
