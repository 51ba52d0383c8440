package fake

import (
	"fmt"
	"time"

	"flota/internal/driver"
	"flota/internal/unit"
)

// restartAfter, startLimit and startWindow are systemd's defaults of RestartSec=, StartLimitBurst= and
// StartLimitIntervalSec= (facts: 100 ms, 5 in 10 s).
const (
	restartAfter = 100 * time.Millisecond
	startLimit   = 5
	startWindow  = 10 * time.Second
)

// member is one loaded unit. All its methods want the driver's lock held.
type member struct {
	d       *Driver
	u       unit.Unit
	does    Behaviour // of the process that runs, or of the next one
	st      unit.State
	alive   bool        // its process exists
	pending uint64      // the run to start when the stop is done; 0 is none
	starts  []time.Time // of late, for the start limit
	timer   *time.Timer // the next thing to happen
	turn    int         // counts plans, so that a timer that lost its race does nothing
	waiters []chan struct{}
	lines   []driver.LogLine
	loads   int // pid of the fake processes is made of it
}

// after plans what to do next, instead of what was planned before. A wait of 0 does it at once.
func (m *member) after(wait time.Duration, do func()) {
	m.cancel()
	if wait <= 0 {
		do()
		return
	}
	turn := m.turn
	m.timer = time.AfterFunc(wait, func() {
		m.d.mu.Lock()
		defer m.d.mu.Unlock()
		if m.turn == turn {
			do()
		}
	})
}

// cancel forgets what was planned.
func (m *member) cancel() {
	m.turn++
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

// start begins run.
func (m *member) start(run uint64, automatic bool) {
	m.st.Run, m.pending = run, 0
	m.does = m.d.behaviour(m.u)
	now := time.Now()
	if !automatic {
		m.st.Restarts = 0
	}
	for len(m.starts) > 0 && now.Sub(m.starts[0]) >= startWindow {
		m.starts = m.starts[1:]
	}
	if len(m.starts) >= startLimit {
		m.cancel()
		m.st.Result = "start-limit-hit"
		m.set("failed", "failed", fmt.Sprintf("start-limit-hit: %d starts in 10 s", startLimit))
		return
	}
	m.starts = append(m.starts, now)
	m.loads++
	m.st.MainPID, m.st.Result, m.st.ExitCode, m.st.Signal = 1000+m.loads, "success", 0, ""
	m.run(true)
	m.say("stdout", "")
	m.set("activating", "start", "starting")
	m.after(m.does.StartDelay, func() {
		if m.does.FailStart {
			code := m.does.ExitCode
			if code == 0 {
				code = 3
			}
			m.ended("exit-code", code, "", fmt.Sprintf("main process exited with status %d (exit-code)", code))
			return
		}
		m.say("flota", "Started.")
		m.set("active", "running", "running")
		if m.does.EndAfter > 0 {
			m.after(m.does.EndAfter, m.ends)
		}
	})
}

// ends is the process ending by itself.
func (m *member) ends() {
	if m.does.ExitCode == 0 {
		m.ended("success", 0, "", "main process exited with status 0")
		return
	}
	m.ended("exit-code", m.does.ExitCode, "", fmt.Sprintf("main process exited with status %d (exit-code)", m.does.ExitCode))
}

// ended is the end of the process that nobody asked for: the restart policy follows.
func (m *member) ended(result string, code int, signal, message string) {
	m.gone()
	m.st.Result, m.st.ExitCode, m.st.Signal = result, code, signal
	m.say("flota", message)
	switch {
	case m.pending != 0:
		m.start(m.pending, false)
	case m.st.Active == "deactivating" || result == "success":
		m.st.Result = "success"
		m.cancel()
		m.set("inactive", "dead", message)
	case m.does.Restart:
		m.st.Restarts++
		m.set("activating", "auto-restart", fmt.Sprintf("%s; restart %d in 100ms", message, m.st.Restarts))
		m.after(restartAfter, func() {
			if !m.allowed() {
				m.set("inactive", "dead", "not restarted: the fence has run out")
				return
			}
			m.start(m.st.Run, true)
		})
	default:
		m.cancel()
		m.set("failed", "failed", message)
	}
}

// stop ends the unit; then a pending run is started.
func (m *member) stop() {
	if !m.alive {
		m.cancel()
		if m.st.Active == "activating" {
			m.set("inactive", "dead", "stopped")
		}
		m.next()
		return
	}
	if m.st.Active == "deactivating" {
		return // on its way already
	}
	m.set("deactivating", "stop-sigterm", "stopping")
	m.after(m.does.StopTakes, func() {
		m.gone()
		m.cancel()
		m.say("flota", "Stopped.")
		if m.does.StopKilled {
			m.st.Result, m.st.Signal = "timeout", "SIGKILL"
			m.set("failed", "failed", "killed: it did not stop in time")
		} else {
			m.set("inactive", "dead", "stopped")
		}
		m.next()
	})
}

// next starts the pending run, if any.
func (m *member) next() {
	if m.pending != 0 {
		m.start(m.pending, false)
	}
}

// lost ends the unit without a word from it: power cut, fence. It may be asked for under the same run again.
func (m *member) lost() {
	m.cancel()
	m.gone()
	m.pending, m.starts = 0, nil
	m.st.Run, m.st.Restarts, m.st.Result = 0, 0, "machine-restarted"
	m.set("inactive", "dead", "the machine was restarted")
}

// fenced ends an exclusive unit by force.
func (m *member) fenced() {
	if !m.alive && m.st.Active != "activating" {
		m.pending = 0
		return
	}
	m.cancel()
	m.gone()
	m.pending, m.st.Run, m.st.Result = 0, 0, "fenced"
	m.set("inactive", "dead", "stopped by force: the fence has run out")
}

// run notes that the process begins or is gone.
func (m *member) run(started bool) {
	m.alive = started
	if m.d.opts.OnRun != nil {
		m.d.opts.OnRun(m.u.Name, m.st.Run, started)
	}
}

// gone takes the process away, if there is one.
func (m *member) gone() {
	if m.alive {
		m.st.MainPID = 0
		m.run(false)
	}
}

// set publishes a state.
func (m *member) set(active, sub, message string) {
	if m.st.Active != active {
		m.st.Since = time.Now()
	}
	m.st.Active, m.st.Sub, m.st.Message = active, sub, message
	m.d.opts.Log.Debug("fake unit", "unit", m.u.Name, "active", active, "sub", sub, "message", message)
	if m.d.units[m.u.Name] == m {
		m.d.board.Set(m.st)
	}
	m.d.wake()
	if !m.alive && active != "activating" {
		for _, w := range m.waiters {
			close(w)
		}
		m.waiters = nil
	}
}

// say adds a line, or for stdout the lines that the behaviour prints.
func (m *member) say(stream, text string) {
	add := func(text string) {
		m.lines = append(m.lines, driver.LogLine{Time: time.Now(), Unit: m.u.Name, Stream: stream, Text: text})
	}
	if stream == "stdout" {
		for i := range m.does.Lines {
			add(fmt.Sprintf("line %d", i+1))
		}
	} else {
		add(text)
	}
	const keep = 10000 // lines per unit; a soak would eat the memory otherwise
	if len(m.lines) > keep {
		m.lines = m.lines[len(m.lines)-keep:]
	}
	m.d.wake()
}

// allowed says whether the unit may run now: an exclusive one only before the fence.
func (m *member) allowed() bool { return !m.does.Exclusive || time.Now().Before(m.d.fence) }
