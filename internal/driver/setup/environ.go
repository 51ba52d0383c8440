package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"flota/internal/fault"
	"flota/internal/service"
	"flota/internal/setting"
)

// defaultPath is what commands find programs in. Source: systemd.exec(5), PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// passed are the supervisor's own variables that every unit sees: the language, as with systemd, on which machine it runs and
// where its keys are.
var passed = []string{"LANG", "FLOTA_MACHINE", "FLOTA_ADDR", "FLOTA_KEYS"}

// maxEnvFile bounds an EnvironmentFile=; a megabyte is more than any exec could take.
const maxEnvFile = 1 << 20

// Environment gives the whole environment of a command; statics are what the supervisor itself has to say ($MAINPID and
// the like). Files are read anew for each command, so an ExecStartPre= may write them. Order by weight, from
// systemd.exec(5): statics, PassEnvironment=, Environment=, files; UnsetEnvironment= takes away.
func (r Run) Environment(statics []string) ([]string, error) {
	env := []string{"PATH=" + defaultPath}
	add := func(name, value string) { env = setting.SetEnv(env, name+"="+value) }
	for _, name := range passed {
		if v := os.Getenv(name); v != "" {
			add(name, v)
		}
	}
	if r.Who.Switch || os.Geteuid() != 0 {
		add("USER", r.Who.Name)
		add("LOGNAME", r.Who.Name)
		add("HOME", r.Who.Home)
		add("SHELL", r.Who.Shell)
	}
	for _, set := range r.dirSets() {
		if dirs := set.paths(); len(dirs) > 0 {
			add(set.variable, strings.Join(dirs, ":"))
		}
	}
	if r.Svc.PIDFile != "" {
		add("PIDFILE", r.Svc.PIDFile)
	}
	for _, kv := range statics {
		env = setting.SetEnv(env, kv)
	}
	for _, name := range r.Svc.Env.Pass {
		if v, ok := os.LookupEnv(name); ok {
			add(name, v)
		}
	}
	for _, kv := range r.Svc.Env.Set {
		env = setting.SetEnv(env, kv)
	}
	for _, f := range r.Svc.Env.Files {
		more, err := readEnvFiles(f)
		if err != nil {
			return nil, err
		}
		for _, kv := range more {
			env = setting.SetEnv(env, kv)
		}
	}
	return setting.UnsetEnv(env, r.Svc.Env.Unset), nil
}

// readEnvFiles reads one EnvironmentFile= setting: a path or a pattern of several.
func readEnvFiles(f service.EnvFile) (env []string, err error) {
	paths := []string{f.Path}
	if strings.ContainsAny(f.Path, "*?[") {
		if paths, err = filepath.Glob(f.Path); err != nil {
			return nil, fmt.Errorf("EnvironmentFile=%s: %w", f.Path, err)
		}
		slices.Sort(paths)
		if len(paths) == 0 && !f.Optional {
			return nil, fault.New(fault.NotFound, "EnvironmentFile=%s: no such file", f.Path)
		}
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err == nil && (info.Size() > maxEnvFile || !info.Mode().IsRegular()) {
			return nil, fault.New(fault.Invalid, "EnvironmentFile=%s: not a file of up to 1 MiB", p)
		}
		text, err := os.ReadFile(p)
		if err != nil && f.Optional {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("EnvironmentFile=: %w", err)
		}
		more, _ := setting.EnvFile(string(text))
		env = append(env, more...)
	}
	return env, nil
}
