package service

import (
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// contextKeys are the keys of environment, identity, directories and streams.
func contextKeys() map[string]setter {
	keys := map[string]setter{
		"Environment":      environment,
		"EnvironmentFile":  environmentFile,
		"PassEnvironment":  list(func(s *Service) *[]string { return &s.Env.Pass }, checkEnvName),
		"UnsetEnvironment": list(func(s *Service) *[]string { return &s.Env.Unset }, checkUnset),

		"User":                 userOrGroup(func(s *Service) *string { return &s.Identity.User }),
		"Group":                userOrGroup(func(s *Service) *string { return &s.Identity.Group }),
		"SupplementaryGroups":  supplementary,
		"DynamicUser":          boolean(func(s *Service) *bool { return &s.Identity.Dynamic }),
		"UMask":                octal(func(s *Service) *uint32 { return &s.Identity.UMask }),
		"NoNewPrivileges":      boolean(func(s *Service) *bool { return &s.Identity.NoNewPrivs }),
		"PermissionsStartOnly": boolean(func(s *Service) *bool { return &s.Identity.StartOnly }),
		"CapabilityBoundingSet": capabilities(setting.AllCaps,
			func(s *Service) *setting.Caps { return &s.Identity.Bounding }),
		"AmbientCapabilities": capabilities(0, func(s *Service) *setting.Caps { return &s.Identity.Ambient }),

		"WorkingDirectory": workingDirectory,
		"RootDirectory":    rootDirectory,
		"RuntimeDirectoryPreserve": choiceOrBool(func(s *Service) *string { return &s.Dirs.RuntimePreserve },
			"no", "restart"),

		"StandardInput":     standardInput,
		"StandardOutput":    standardOutput(func(s *Service) *Stream { return &s.IO.Output }),
		"StandardError":     standardOutput(func(s *Service) *Stream { return &s.IO.Error }),
		"StandardInputText": inputText,
		"StandardInputData": inputData,
		"SyslogIdentifier":  text(func(s *Service) *string { return &s.IO.SyslogID }),
		"TTYPath":           absolute(func(s *Service) *string { return &s.IO.TTY }),
		"IgnoreSIGPIPE":     boolean(func(s *Service) *bool { return &s.IO.IgnorePIPE }),
	}
	for name, field := range map[string]func(*Service) *DirSet{
		"Runtime":       func(s *Service) *DirSet { return &s.Dirs.Runtime },
		"State":         func(s *Service) *DirSet { return &s.Dirs.State },
		"Cache":         func(s *Service) *DirSet { return &s.Dirs.Cache },
		"Logs":          func(s *Service) *DirSet { return &s.Dirs.Logs },
		"Configuration": func(s *Service) *DirSet { return &s.Dirs.Config },
	} {
		keys[name+"Directory"] = directories(name, field)
		keys[name+"DirectoryMode"] = octal(func(s *Service) *uint32 { return &field(s).Mode })
	}
	return keys
}

func environment(p *parser, value string) error {
	if value == "" {
		p.Env.Set = nil
		return nil
	}
	words, err := setting.WordsStrict(value)
	if err != nil {
		return err
	}
	for _, w := range words {
		if w, err = p.expand(w); err != nil {
			p.skip(err)
		} else if !setting.CheckAssignment(w) {
			p.skip(fault.New(fault.Invalid, "%q is not NAME=value", w))
		} else {
			p.Env.Set = setting.SetEnv(p.Env.Set, w)
		}
	}
	return nil
}

func environmentFile(p *parser, value string) error {
	if value == "" {
		p.Env.Files = nil
		return nil
	}
	v, err := p.expand(value)
	if err != nil {
		return err
	}
	v, optional := strings.CutPrefix(v, "-")
	if v, err = setting.Path(v); err != nil {
		return err
	}
	p.Env.Files = append(p.Env.Files, EnvFile{Path: v, Optional: optional})
	return nil
}

func checkEnvName(w string) error {
	if !setting.CheckEnvName(w) {
		return fault.New(fault.Invalid, "%q is not the name of a variable", w)
	}
	return nil
}

func checkUnset(w string) error {
	if !setting.CheckAssignment(w) {
		return checkEnvName(w)
	}
	return nil
}

// userOrGroup reads User= and Group=; what cannot be a name or a number is fatal.
func userOrGroup(field func(*Service) *string) setter {
	return func(p *parser, value string) error {
		v, err := p.expand(value)
		if err != nil {
			return fatal{err}
		}
		if value != "" {
			if err := setting.CheckUser(v); err != nil {
				return fatal{err}
			}
		}
		*field(&p.Service) = v
		return nil
	}
}

func supplementary(p *parser, value string) error {
	if value == "" {
		p.Identity.Supplementary = nil
		return nil
	}
	words, err := setting.PlainWords(value)
	if err != nil {
		return fatal{err}
	}
	for _, w := range words {
		if w, err = p.expand(w); err != nil {
			return fatal{err}
		}
		if err := setting.CheckUser(w); err != nil {
			return fatal{err}
		}
		p.Identity.Supplementary = append(p.Identity.Supplementary, w)
	}
	return nil
}

func capabilities(initial setting.Caps, field func(*Service) *setting.Caps) setter {
	return func(p *parser, value string) error {
		caps := field(&p.Service)
		merged, unknown := setting.MergeCaps(*caps, initial, value)
		for _, w := range unknown {
			p.skip(fault.New(fault.Invalid, "%q is not a capability", w))
		}
		*caps = merged
		return nil
	}
}
