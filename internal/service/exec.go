package service

import "flota/internal/setting"

// exec reads an Exec line into the list that field gives. An empty line forgets those before. A bad line is fatal,
// unless its bad command may fail anyway (prefix -).
func exec(field func(*Service) *[]Command) setter {
	return func(p *parser, value string) error {
		list := field(&p.Service)
		if value == "" {
			*list = nil
			return nil
		}
		commands, ignore, err := setting.Commands(value, p.expand)
		*list = append(*list, commands...)
		if err != nil && !ignore {
			return fatal{err}
		}
		return err
	}
}
