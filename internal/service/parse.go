package service

import (
	"errors"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/setting"
	"flota/internal/unit"
)

// Note is something in a unit file that a person should know although the unit is usable.
type Note struct {
	Section string // of the file, without brackets
	Key     string // empty when the note is about a whole section
	// Class is BadValue for a value that was skipped, Unknown for a key or section that does not exist. A driver
	// adds notes with the class of the key for keys that it does not honour.
	Class   KeyClass
	Message string // lower case, no full stop
}

// String gives "[Section] Key=: message".
func (n Note) String() string {
	if n.Key == "" {
		return "[" + n.Section + "]: " + n.Message
	}
	return "[" + n.Section + "] " + n.Key + "=: " + n.Message
}

// setter reads one assignment into the service. An error skips the assignment with a Note; one made by fatal makes the
// whole unit unusable.
type setter func(p *parser, value string) error

// fatal marks an error that makes the unit unusable.
type fatal struct{ error }

// Unwrap gives the marked error.
func (f fatal) Unwrap() error { return f.error }

// parser is a Service being read.
type parser struct {
	Service
	host  Host
	look  setting.Specifiers
	notes []Note

	section, key string // being read

	typeSet, startTimeoutSet, abortTimeoutSet, oomPolicySet bool
	restartSignalSet                                        bool
	namespaces                                              map[string]bool // RestrictNamespaces=: allowed kinds; nil for no rule
}

// Parse reads a .service unit as systemd 252 would on the host. Notes tell of what was skipped. Errors are fault.Invalid
// and name the unit, section and key; they mean that systemd would load the unit as "bad-setting".
func Parse(name unit.Name, f unit.File, host Host) (Service, []Note, error) {
	p := newParser(name, host)
	own, err := f.Flota(name)
	if err != nil {
		return Service{}, nil, err
	}
	p.Flota = own
	var badSections []string
	for _, o := range f.Options {
		p.section, p.key = o.Section, o.Name
		switch {
		case strings.HasPrefix(o.Section, "X-"), strings.HasPrefix(o.Name, "X-"):
			continue
		case sections(o.Section) == nil:
			if !slices.Contains(badSections, o.Section) {
				badSections = append(badSections, o.Section)
				p.notes = append(p.notes, Note{Section: o.Section, Class: Unknown, Message: "unknown section, ignored"})
			}
			continue
		}
		if err := p.assign(o.Joined()); err != nil {
			return Service{}, p.notes, fault.Wrap(fault.Invalid, err, "%s: [%s] %s=", name, o.Section, o.Name)
		}
	}
	if err := p.finish(); err != nil {
		return Service{}, p.notes, fault.Wrap(fault.Invalid, err, "%s: [Service]", name)
	}
	return p.Service, p.notes, nil
}

// newParser gives a parser whose service has systemd's defaults. Source: facts on units, section 3.2.
func newParser(name unit.Name, host Host) *parser {
	return &parser{host: host, look: host.Specifiers(name), Service: Service{
		Name: name, Description: string(name), ExitType: "main", GuessMainPID: true, NotifyAccess: NotifyNone,
		Restart: RestartNo, RestartDelay: 100 * time.Millisecond,
		StartLimit:   StartLimit{Interval: 10 * time.Second, Burst: 5, Action: "none"},
		TimeoutStart: 90 * time.Second, TimeoutStop: 90 * time.Second, RuntimeMax: setting.Infinity,
		StartFailMode: "terminate", StopFailMode: "terminate", OOMPolicy: "stop",
		SuccessAction: "none", FailureAction: "none", Keys: map[string]int{}, Limits: map[string]setting.Limit{},
		Kill:     defaultKill(),
		Identity: Identity{UMask: 0o022, Bounding: setting.AllCaps},
		Dirs: Dirs{
			Runtime: DirSet{Mode: 0o755}, State: DirSet{Mode: 0o755}, Cache: DirSet{Mode: 0o755},
			Logs: DirSet{Mode: 0o755}, Config: DirSet{Mode: 0o755}, RuntimePreserve: "no",
		},
		IO: IO{Input: Stream{Kind: "null"}, Output: Stream{Kind: "inherit"}, Error: Stream{Kind: "inherit"},
			TTY: "/dev/console", IgnorePIPE: true},
		Resources: Resources{
			MemoryMax: setting.Unlimited, MemoryHigh: setting.Unlimited, MemorySwapMax: setting.Unlimited,
			TasksMax: defaultTasks(host), CPUQuotaPeriod: 100 * time.Millisecond, IOPriority: 4,
		},
		Sandbox: Sandbox{DevicePolicy: "auto", KeyringMode: "private"},
	}}
}

func defaultTasks(h Host) int64 {
	if h.DefaultTasks > 0 {
		return h.DefaultTasks
	}
	return setting.Unlimited
}

// assign reads one assignment of a known section.
func (p *parser) assign(value string) error {
	row, ok := sections(p.section)[p.key]
	if !ok {
		if p.section == "Service" && Class(p.key) != Unknown {
			p.Keys[p.key]++ // known, and left to systemd
			return nil
		}
		if p.section != "Unit" || !leftUnitKeys[p.key] {
			p.note(Unknown, "unknown key, ignored")
		}
		return nil
	}
	if p.section == "Service" {
		p.Keys[p.key]++
	}
	err := row(p, value)
	if f := (fatal{}); errors.As(err, &f) {
		return f.error
	}
	if err != nil {
		p.note(BadValue, err.Error()+", ignored")
	}
	return nil
}

// note tells of the assignment being read.
func (p *parser) note(class KeyClass, message string) {
	p.notes = append(p.notes, Note{Section: p.section, Key: p.key, Class: class, Message: message})
}

// skip tells of one word of a list that was skipped.
func (p *parser) skip(err error) { p.note(BadValue, err.Error()+", ignored") }

// expand replaces specifiers.
func (p *parser) expand(s string) (string, error) { return setting.Expand(s, p.look) }

// expandWords splits a list and expands each word; words that cannot be expanded are skipped with a note.
func (p *parser) expandWords(s string) ([]string, error) {
	words, err := setting.PlainWords(s)
	if err != nil {
		return nil, err
	}
	out := words[:0]
	for _, w := range words {
		if w, err := p.expand(w); err != nil {
			p.skip(err)
		} else {
			out = append(out, w)
		}
	}
	return out, nil
}
