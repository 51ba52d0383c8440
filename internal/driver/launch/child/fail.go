package child

import "os"

// systemd's exit codes of what happens before the program runs. Source: systemd.exec(5), Process Exit Codes.
const (
	ExitChdir        = 200
	ExitNice         = 201
	ExitFDs          = 202
	ExitExec         = 203
	ExitLimits       = 205
	ExitOOMAdjust    = 206
	ExitSignalMask   = 207
	ExitStdin        = 208
	ExitStdout       = 209
	ExitIOPrio       = 211
	ExitSecureBits   = 213
	ExitScheduler    = 214
	ExitAffinity     = 215
	ExitGroup        = 216
	ExitUser         = 217
	ExitCapabilities = 218
	ExitCgroup       = 219
	ExitStderr       = 222
	ExitNetwork      = 225
	ExitNamespace    = 226
	ExitNoNewPrivs   = 227
	ExitSeccomp      = 228
	ExitKeyring      = 237
)

// fail makes the Failure of a step; nil for a nil err.
func fail(step string, code int, err error) *Failure {
	if err == nil {
		return nil
	}
	return &Failure{Step: step, Code: code, Message: err.Error()}
}

// wrap says what was being done when err happened; nil for nil.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return &os.SyscallError{Syscall: what, Err: err}
}
