package child

import (
	"encoding/json"
	"io"
	"os"
)

// wire is a Spec on its way to the helper: what may hold bytes that are not UTF-8 goes as base64, since JSON would
// change them.
type wire struct {
	*Spec
	Path []byte   `json:"path"`
	Args [][]byte `json:"args"`
	Env  [][]byte `json:"env"`
	Dir  []byte   `json:"dir"`
}

// Send writes s in the form that Receive reads.
func Send(w io.Writer, s *Spec) error {
	return json.NewEncoder(w).Encode(wire{s, []byte(s.Path), toBytes(s.Args), toBytes(s.Env), []byte(s.Dir)})
}

// Receive reads the Spec from a file descriptor whose position does not matter.
func Receive(fd int) (*Spec, error) {
	f := os.NewFile(uintptr(fd), "spec")
	w := wire{Spec: new(Spec)}
	if err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<30)).Decode(&w); err != nil {
		return nil, wrap("read spec", err)
	}
	w.Spec.Path, w.Spec.Dir = string(w.Path), string(w.Dir)
	w.Spec.Args, w.Spec.Env = toStrings(w.Args), toStrings(w.Env)
	return w.Spec, f.Close()
}

func toBytes(in []string) [][]byte {
	out := make([][]byte, len(in))
	for i, s := range in {
		out[i] = []byte(s)
	}
	return out
}

func toStrings(in [][]byte) []string {
	out := make([]string, len(in))
	for i, b := range in {
		out[i] = string(b)
	}
	return out
}
