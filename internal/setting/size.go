package setting

import (
	"math"
	"math/bits"
	"strconv"
	"strings"

	"flota/internal/fault"
)

// sizeUnits in the order in which the parts of a size may follow each other.
// Source: systemd.syntax and `systemd-analyze` 252: base 1024, upper case only.
var sizeUnits = []struct {
	suffix string
	shift  uint
}{{"E", 60}, {"P", 50}, {"T", 40}, {"G", 30}, {"M", 20}, {"K", 10}, {"B", 0}, {"", 0}}

// Size reads a number of bytes: NUMBER[.FRACTION][blank][B K M G T P E], base 1024, upper case only; parts of
// falling units are summed ("1G 500M"); "infinity", and what is above 63 bits, is Unlimited. Percentages are not sizes: see Amount.
// Zero is a size; keys that refuse it check for themselves. Errors are fault.Invalid.
func Size(s string) (int64, error) {
	if s == "infinity" {
		return Unlimited, nil
	}
	bad := func() (int64, error) {
		return 0, fault.New(fault.Invalid, "%q is not a size (such as 512M, 1.5G or infinity)", s)
	}
	var sum uint64
	units := sizeUnits
	for p := s; ; {
		whole, frac, rest, ok := sizeNumber(strings.TrimLeft(p, blanks))
		if !ok {
			return bad()
		}
		rest = strings.TrimLeft(rest, blanks)
		i := 0
		for i < len(units) && !strings.HasPrefix(rest, units[i].suffix) {
			i++
		}
		if i == len(units) {
			return bad()
		}
		hi, lo := bits.Mul64(whole, 1<<units[i].shift)
		part := uint64(frac * float64(uint64(1)<<units[i].shift))
		if hi != 0 || part > math.MaxUint64-lo || sum >= math.MaxUint64-lo-part {
			return 0, fault.New(fault.Invalid, "size %q is out of range", s)
		}
		sum += lo + part
		p, units = rest[len(units[i].suffix):], units[i+1:]
		if p == "" {
			return int64(min(sum, uint64(Unlimited))), nil
		}
	}
}

// sizeNumber takes [+]DIGITS[.[DIGITS]] off p.
func sizeNumber(p string) (whole uint64, frac float64, rest string, ok bool) {
	p = strings.TrimPrefix(p, "+")
	n := digits(p)
	whole, err := strconv.ParseUint(p[:n], 10, 64)
	if err != nil {
		return 0, 0, "", false
	}
	rest, dot := strings.CutPrefix(p[n:], ".")
	if !dot {
		return whole, 0, rest, true
	}
	n = digits(rest)
	if n > 0 {
		frac, _ = strconv.ParseFloat("0."+rest[:n], 64)
	}
	return whole, frac, rest[n:], true
}

// Amount is a limit that is either absolute or a share of what the host has.
type Amount struct {
	Absolute int64   // bytes or tasks; Unlimited for infinity; meaningful when Share is 0
	Share    float64 // percent of the whole, above 0 up to 100; 0 when the limit is absolute
}

// Of gives the limit for a host that has whole; the share is cut to whole units.
// With whole 0 (unknown) a share is Unlimited.
func (a Amount) Of(whole int64) int64 {
	switch {
	case a.Share == 0:
		return a.Absolute
	case whole <= 0:
		return Unlimited
	}
	// Hundredths of a percent are exact in the text; 128 bits keep whole*10000 exact too.
	hi, lo := bits.Mul64(uint64(whole), uint64(a.Share*100+0.5))
	q, _ := bits.Div64(hi, lo, 10000)
	return int64(q)
}

// MemoryAmount reads MemoryMax= and its like: a size, or "N%" of the host's memory up to 100%.
// Zero is accepted; keys that refuse it check for themselves. Errors are fault.Invalid.
func MemoryAmount(s string) (Amount, error) { return amount(s, Size) }

// TasksAmount reads TasksMax=: a whole number above 0, "N%" of what the host allows, or "infinity".
// Errors are fault.Invalid.
func TasksAmount(s string) (Amount, error) {
	a, err := amount(s, func(s string) (int64, error) {
		if s == "infinity" {
			return Unlimited, nil
		}
		n, err := Uint(s)
		if err != nil {
			return 0, fault.New(fault.Invalid, "%q is not a number of tasks (such as 100, 10%% or infinity)", s)
		}
		return int64(min(n, uint64(Unlimited))), nil
	})
	if err == nil && a == (Amount{}) {
		return a, fault.New(fault.Invalid, "number of tasks %q must be above 0", s)
	}
	return a, err
}

func amount(s string, absolute func(string) (int64, error)) (Amount, error) {
	if !strings.HasSuffix(s, "%") && !strings.HasSuffix(s, "‰") && !strings.HasSuffix(s, "‱") {
		n, err := absolute(s)
		return Amount{Absolute: n}, err
	}
	p, err := Percent(s)
	if err != nil {
		return Amount{}, err
	}
	if p > 100 {
		return Amount{}, fault.New(fault.Invalid, "%q is more than 100%%", s)
	}
	return Amount{Share: p}, nil
}

// Percent reads "N[.F]%" with at most two decimals and gives the number before the sign: 150 for "150%". Thousandths
// ("15.5‰", one decimal) and ten-thousandths ("155‱") are percentages too. The result may be above 100 and
// may be 0; keys that refuse these check for themselves. Errors are fault.Invalid.
func Percent(s string) (float64, error) {
	for _, sign := range []struct {
		text     string
		decimals int
		divide   float64
	}{{"%", 2, 1}, {"‰", 1, 10}, {"‱", 0, 100}} {
		num, ok := strings.CutSuffix(s, sign.text)
		whole, frac, dot := strings.Cut(strings.TrimPrefix(num, "+"), ".")
		n := digits(whole)
		if !ok || n == 0 || n != len(whole) || n > 9 || dot && (frac == "" || len(frac) > sign.decimals || digits(frac) != len(frac)) {
			continue
		}
		if v, err := strconv.ParseFloat(num, 64); err == nil {
			return v / sign.divide, nil
		}
	}
	return 0, fault.New(fault.Invalid, "%q is not a percentage (such as 50%%)", s)
}
