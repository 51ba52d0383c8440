package launch

import (
	"fmt"
	"os"
	"strings"

	"flota/internal/driver/launch/child"
	"flota/internal/service"
	"flota/internal/setting"
)

// Context is what Plan needs to know beside the settings.
type Context struct {
	Host     Host     // what this machine can do, from LookHost
	Identity Identity // from Identify, once for all commands of a run
	Start    bool     // the command is from ExecStart=, for PermissionsStartOnly=
	Argv     []string // the command's argv after $VAR substitution; nil is cmd.Argv as it is
	Env      []string // the whole environment
	Cgroup   []string // cgroup.Group.Join
	// TmpDir is the private directory of this run for PrivateTmp=, from MakeTmp; all commands of a run share it.
	TmpDir string
	// Writable are the absolute paths of the Runtime-, State-, Cache- and LogsDirectory= of the unit: holes in
	// ProtectSystem=strict.
	Writable []string
	// Journal is the index, among the files given to Start, of what the unit prints to (journal.Writer.Child).
	Journal int
	// MainPID is the unit's main process while it runs, 0 otherwise: with PrivateNetwork= the unit's other commands share its network.
	MainPID int
}

// Plan turns one command of a service into a Spec. It reads nothing but the program's place on disk. The notes tell what of the
// settings cannot be done exactly here, in the form "LimitNOFILE=: ...". Errors are *Failure with systemd's exit
// code of the step, such as 203/EXEC for a program that is not there.
func Plan(s *service.Service, cmd service.Command, c Context) (Spec, []string, error) {
	path, err := lookPath(cmd.Path)
	if err != nil {
		return Spec{}, nil, err
	}
	p := &planner{s: s, c: c, Spec: Spec{
		Path: path, Args: c.Argv, Env: c.Env, CgroupProcs: c.Cgroup, Umask: s.Identity.UMask,
		IgnoreSIGPIPE: s.IO.IgnorePIPE,
		Dir:           s.Dirs.Working, DirMissingOK: s.Dirs.WorkingOptional,
	}}
	if p.Args == nil {
		p.Args = cmd.Argv
	}
	if p.Dir == "~" {
		p.Dir = c.Identity.Home
	}
	p.streams()
	p.limits()
	p.scheduling()
	full := cmd.Privilege == service.PrivilegeFull || s.Identity.StartOnly && !c.Start
	if !full {
		p.become(cmd.Privilege != service.PrivilegeUser)
		p.sandbox()
	}
	return p.Spec, p.notes, nil
}

// planner holds one Spec in the making.
type planner struct {
	Spec
	s     *service.Service
	c     Context
	notes []string
}

func (p *planner) note(key, format string, args ...any) {
	p.notes = append(p.notes, key+"=: "+fmt.Sprintf(format, args...))
}

// searchPath is where a bare name is looked for. Source: systemd's DEFAULT_PATH.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// lookPath gives the program's absolute path. An absolute one is not checked: the helper does, as the unit's user.
func lookPath(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	for _, dir := range searchPath {
		at := dir + "/" + name
		if st, err := os.Stat(at); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return at, nil
		}
	}
	return "", &Failure{Step: "EXEC", Code: child.ExitExec, Message: name + ": no such program in " + strings.Join(searchPath, ":")}
}

// streams decides where the standard streams go.
func (p *planner) streams() {
	io := &p.s.IO
	p.Stdin = p.input(io)
	tty := p.Stdin.Kind == child.TTY
	p.Stdout = p.output("StandardOutput", io.Output, tty, Stdio{Kind: child.FD, File: p.c.Journal})
	p.Stderr = p.output("StandardError", io.Error, false, Stdio{Kind: child.Same})
	if io.Error.Kind == "inherit" && p.Stdout.Kind != child.Null {
		p.Stderr = Stdio{Kind: child.Same}
	}
}

// input gives stdin. Data that is set without StandardInput= is fed all the same, as in systemd.
func (p *planner) input(io *service.IO) Stdio {
	kind := io.Input.Kind
	if kind == "null" && len(io.InData) > 0 && p.s.Keys["StandardInput"] == 0 {
		kind = "data"
	}
	switch kind {
	case "tty", "tty-force", "tty-fail":
		return Stdio{Kind: child.TTY, Path: io.TTY}
	case "file":
		return Stdio{Kind: child.File, Path: io.Input.Path}
	case "data":
		return Stdio{Kind: child.Data, Data: io.InData}
	case "socket", "fd":
		p.note("StandardInput", "%s is not honoured here, null is used", io.Input.Kind)
	}
	return Stdio{}
}

// output gives a stream; same is what inherit means.
func (p *planner) output(key string, o service.Stream, tty bool, same Stdio) Stdio {
	journal := Stdio{Kind: child.FD, File: p.c.Journal}
	switch o.Kind {
	case "null":
		return Stdio{}
	case "tty":
		return Stdio{Kind: child.TTY, Path: p.s.IO.TTY}
	case "file":
		return Stdio{Kind: child.File, Path: o.Path}
	case "append":
		return Stdio{Kind: child.Append, Path: o.Path}
	case "truncate":
		return Stdio{Kind: child.Truncate, Path: o.Path}
	case "kmsg", "kmsg+console", "journal+console", "socket", "fd":
		p.note(key, "%s is not honoured here, the unit's journal is used", o.Kind)
		return journal
	case "journal":
		return journal
	}
	if tty {
		return Stdio{Kind: child.Same}
	}
	return same
}

// become sets user, groups, capabilities and what they imply; withUser is false for commands that keep the manager's user.
func (p *planner) become(withUser bool) {
	who, h := p.c.Identity, p.c.Host
	if withUser && who.Switch {
		p.User = &child.User{UID: who.UID, GID: who.GID, Groups: who.Groups}
	}
	if h.Root {
		bounding := uint64(p.s.Identity.Bounding)
		if bounding&uint64(setting.AllCaps) == uint64(setting.AllCaps) {
			bounding = ^uint64(0) // also those that have no name yet
		}
		ambient := uint64(p.s.Identity.Ambient)
		if lost := setting.Caps(ambient &^ h.Caps); lost != 0 {
			p.note("AmbientCapabilities", "this machine does not give %s", lost)
			ambient &= h.Caps
		}
		p.Caps = &child.Caps{Bounding: bounding, Ambient: ambient}
	}
	p.NoNewPrivs = p.s.Identity.NoNewPrivs
	switch p.s.Sandbox.KeyringMode {
	case "private", "shared":
		p.Keyring = p.s.Sandbox.KeyringMode
	}
}

// unprivileged reports whether the program will run without CAP_SYS_ADMIN, so that filters need no_new_privs.
func (p *planner) unprivileged() bool {
	if !p.c.Host.Root {
		return true
	}
	const sysAdmin = 1 << 21
	return p.User != nil && p.User.UID > 0 && p.Caps.Ambient&sysAdmin == 0 || p.c.Host.Caps&sysAdmin == 0
}
