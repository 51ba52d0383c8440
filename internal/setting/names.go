package setting

import (
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flota/internal/fault"
)

// Errno reads an error number from 1 to 4095 or a name such as EPERM, in any case, and gives the name where there is one.
// Errors are fault.Invalid.
func Errno(s string) (string, error) {
	if n, err := Uint(s); err == nil && n >= 1 && n <= 4095 {
		if name := unix.ErrnoName(syscall.Errno(n)); name != "" {
			return name, nil
		}
		return strconv.FormatUint(n, 10), nil
	}
	for n := syscall.Errno(1); n < 256; n++ {
		if name := unix.ErrnoName(n); name != "" && strings.EqualFold(name, s) {
			return name, nil
		}
	}
	return "", fault.New(fault.Invalid, "%q is not an error number", s)
}

// CheckUser accepts what can be the name or the number of a user or group, by systemd's relaxed rules; the numbers
// 65535 and 4294967295 mean "none" to the kernel. Errors are fault.Invalid.
func CheckUser(s string) error {
	bad := s == "" || s == "." || s == ".." || s != strings.TrimSpace(s) || len(s) > 255 ||
		strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' || r == '/' || r == 0xFFFD })
	if digits := strings.TrimPrefix(s, "-"); strings.Trim(digits, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 32)
		bad = bad || err != nil || n == 0xFFFF || n == 0xFFFFFFFF
	}
	if bad {
		return fault.New(fault.Invalid, "%q is not the name or number of a user or group", s)
	}
	return nil
}

// CheckBusName wants a D-Bus name: two or more parts of letters, digits, - and _, no digit first, joined by dots, 255 bytes
// at most. Errors are fault.Invalid. Source: D-Bus specification, Bus names.
func CheckBusName(s string) error {
	parts := strings.Split(s, ".")
	for _, part := range parts {
		word := strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
		if part == "" || !word || part[0] >= '0' && part[0] <= '9' || len(parts) < 2 || len(s) > 255 {
			return fault.New(fault.Invalid, "%q is not a bus name", s)
		}
	}
	return nil
}

// CheckPrefix accepts what IPAddressAllow= and IPAddressDeny= take: an address, a prefix, or one of the names
// any, localhost, link-local and multicast. Errors are fault.Invalid.
func CheckPrefix(w string) error {
	switch w {
	case "any", "localhost", "link-local", "multicast":
		return nil
	}
	if _, err := netip.ParsePrefix(w); err == nil {
		return nil
	}
	if a, err := netip.ParseAddr(w); err == nil && !strings.Contains(w, "%") && a.IsValid() {
		return nil
	}
	return fault.New(fault.Invalid, "%q is not an address or prefix", w)
}

// maxCPU is the highest processor number that CPUAffinity= may name. Source: CPU_SETSIZE of glibc is 1024; larger sets
// exist, and this keeps a range from filling memory.
const maxCPU = 8191

// CPUs reads processor numbers and ranges, separated by blanks or commas, in the order given. Errors are fault.Invalid.
func CPUs(s string) ([]int, error) {
	var cpus []int
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t,", r) }) {
		from, to, isRange := strings.Cut(w, "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || low > high || high > maxCPU || len(cpus) > maxCPU {
			return nil, fault.New(fault.Invalid, "%q is not a processor or a range of processors", w)
		}
		for n := int(low); n <= int(high); n++ {
			cpus = append(cpus, n)
		}
	}
	return cpus, nil
}
