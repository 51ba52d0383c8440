package setting

import (
	"math"
	"strconv"
	"strings"
	"time"

	"flota/internal/fault"
)

// Infinity is the time span that "infinity" stands for: it never ends.
const Infinity time.Duration = math.MaxInt64

// spanUnit is one unit of a time span.
type spanUnit struct {
	name string
	is   time.Duration
}

// spanUnits in the order in which they are tried, longer names first where one begins another.
// Source: systemd.time(7); a month is 30.44 days and a year 365.25 days there.
var spanUnits = []spanUnit{
	{"seconds", time.Second}, {"second", time.Second}, {"sec", time.Second}, {"s", time.Second},
	{"minutes", time.Minute}, {"minute", time.Minute}, {"min", time.Minute},
	{"months", month}, {"month", month}, {"M", month},
	{"msec", time.Millisecond}, {"ms", time.Millisecond}, {"m", time.Minute},
	{"hours", time.Hour}, {"hour", time.Hour}, {"hr", time.Hour}, {"h", time.Hour},
	{"days", day}, {"day", day}, {"d", day},
	{"weeks", 7 * day}, {"week", 7 * day}, {"w", 7 * day},
	{"years", year}, {"year", year}, {"y", year},
	{"usec", time.Microsecond}, {"us", time.Microsecond}, {"μs", time.Microsecond}, {"µs", time.Microsecond},
}

// The long units, in seconds as systemd counts them.
const (
	day   = 24 * time.Hour
	month = 2629800 * time.Second
	year  = 31557600 * time.Second
)

// Span reads a time span such as "1min 30s", "1.5h" or "infinity"; a number without a unit is seconds.
// Parts are summed. A span above 292 years is Infinity. Errors are fault.Invalid.
func Span(s string) (time.Duration, error) { return SpanIn(s, time.Second) }

// SpanIn is Span with another unit for numbers that bring none. The precision is 1 µs.
func SpanIn(s string, bare time.Duration) (time.Duration, error) {
	if strings.Trim(s, blanks) == "infinity" {
		return Infinity, nil
	}
	bad := func() (time.Duration, error) {
		return 0, fault.New(fault.Invalid, "%q is not a time span (such as 90, 1min 30s or infinity)", s)
	}
	var sum uint64 // microseconds
	p := strings.TrimLeft(s, blanks)
	if p == "" {
		return bad()
	}
	for p != "" {
		whole, frac, rest, ok := decimal(p)
		if !ok {
			return bad()
		}
		unit, after := bare, strings.TrimLeft(rest, blanks)
		for _, u := range spanUnits {
			if a, ok := strings.CutPrefix(after, u.name); ok {
				unit, after = u.is, a
				break
			}
		}
		if after == rest && rest != "" {
			return bad() // neither a unit nor a blank after the number
		}
		part, ok := scale(whole, frac, uint64(unit/time.Microsecond))
		if !ok || part >= math.MaxUint64-sum {
			return bad()
		}
		sum += part
		p = strings.TrimLeft(after, blanks)
	}
	if sum >= uint64(Infinity/time.Microsecond) {
		return Infinity, nil
	}
	return time.Duration(sum) * time.Microsecond, nil
}

// decimal takes [+]DIGITS[.DIGITS] or .DIGITS off p.
func decimal(p string) (whole, frac, rest string, ok bool) {
	q := strings.TrimPrefix(p, "+")
	n := digits(q)
	whole, rest = q[:n], q[n:]
	if after, dot := strings.CutPrefix(rest, "."); dot {
		m := digits(after)
		if m == 0 || (n == 0 && q != p) {
			return "", "", "", false
		}
		return whole, after[:m], after[m:], true
	}
	return whole, "", rest, n > 0
}

// digits counts the decimal digits at the start of s.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// scale gives whole.frac units in microseconds, cut to whole ones. ok is false when that does not fit.
func scale(whole, frac string, unit uint64) (us uint64, ok bool) {
	if whole != "" {
		v, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || uint64(v) >= math.MaxUint64/unit {
			return 0, false
		}
		us = uint64(v) * unit
	}
	for _, c := range []byte(frac) {
		unit /= 10
		part := uint64(c-'0') * unit
		if part > math.MaxUint64-us {
			return 0, false
		}
		us += part
	}
	return us, true
}

// PrintSpan gives d as systemd prints it: the units from years down to microseconds that are not zero
// ("1min 30s"), seconds with a fraction when d is below a minute and not whole milliseconds ("1.500000s"),
// "0" and "infinity".
func PrintSpan(d time.Duration) string {
	if d == Infinity {
		return "infinity"
	}
	if d < time.Microsecond {
		return "0"
	}
	var out []string
	for _, u := range printUnits {
		if d < u.is {
			continue
		}
		if frac := d % u.is; frac != 0 && u.is <= time.Second && u.is > time.Microsecond {
			width := 6
			if u.is == time.Millisecond {
				width = 3
			}
			text := strconv.FormatInt(int64(frac/time.Microsecond), 10)
			whole := strconv.FormatInt(int64(d/u.is), 10)
			return strings.Join(append(out, whole+"."+strings.Repeat("0", max(0, width-len(text)))+text+u.name), " ")
		}
		out = append(out, strconv.FormatInt(int64(d/u.is), 10)+u.name)
		d %= u.is
	}
	return strings.Join(out, " ")
}

// printUnits are the units that PrintSpan uses, largest first.
var printUnits = []spanUnit{
	{"y", year}, {"month", month}, {"w", 7 * day}, {"d", day}, {"h", time.Hour}, {"min", time.Minute},
	{"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond},
}
