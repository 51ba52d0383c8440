package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"flota/internal/fault"
)

// isTerminal says whether a person sits at v.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// mayAsk refuses a command that has to be confirmed when nobody can be asked: fault.Invalid. It comes before any request.
func (t *tool) mayAsk(yes bool) error {
	if yes || isTerminal(t.In) {
		return nil
	}
	return fault.WithHint(fault.New(fault.Invalid, "nothing was changed: nobody can be asked to confirm"), "--yes does it without asking")
}

// confirm asks on the terminal; yes is the answer that was given beforehand. Another answer than y or yes ends the command with exit code 1.
func (t *tool) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	fmt.Fprintf(t.Err, "%s [y/N] ", question)
	line, err := wait(ctx, t.line)
	if err != nil {
		fmt.Fprintln(t.Err)
		return err
	}
	if line = strings.ToLower(strings.TrimSpace(line)); line == "y" || line == "yes" {
		return nil
	}
	t.note("nothing was changed")
	return t.Exit(1)
}

// line reads one line of standard input, without reading further. Its end, and an error, end the line too.
func (t *tool) line() (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := t.In.Read(b)
		if n == 1 && b[0] != '\n' && len(line) < 100 { // nobody needs more to say yes
			line = append(line, b[0])
		}
		if n == 1 && b[0] == '\n' || err != nil {
			return string(line), nil
		}
	}
}

// wait calls read, which waits for a person, and ends with ctx although read does not: the program ends then, and read with it.
func wait(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // ends with the line, or the terminal, or the program
		text, err := read()
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// secret asks for a passphrase on the terminal without showing it.
func (t *tool) secret(ctx context.Context, prompt string) (string, error) {
	fd := int(t.In.(*os.File).Fd()) // isTerminal was asked
	before, err := term.GetState(fd)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "ask for the passphrase")
	}
	fmt.Fprint(t.Err, prompt)
	text, err := wait(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	fmt.Fprintln(t.Err)
	if ctx.Err() != nil {
		_ = term.Restore(fd, before) // or else the shell behind would not show what is typed
		return "", context.Cause(ctx)
	}
	switch {
	case err != nil:
		return "", fault.Wrap(fault.Invalid, err, "ask for the passphrase")
	case text == "":
		return "", fault.New(fault.Invalid, "the passphrase is empty")
	}
	return text, nil
}
