package launch

import (
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"syscall"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// What a filter answers. Source: linux/seccomp.h.
const (
	retKill  uint32 = 0x80000000 // the whole process, with SIGSYS
	retErrno uint32 = 0x00050000 // the call fails with the errno in the low 16 bits
	retLog   uint32 = 0x7ffc0000
	retAllow uint32 = 0x7fff0000
)

func errno(e syscall.Errno) uint32 { return retErrno | uint32(e) }

// Offsets in struct seccomp_data, and of one of its 64-bit arguments.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// The instructions of classic BPF that filters use. Source: linux/bpf_common.h.
const (
	bpfLoad  = 0x20 // word at offset k
	bpfAnd   = 0x54
	bpfEqual = 0x15
	bpfGE    = 0x35
	bpfGT    = 0x25
	bpfRet   = 0x06
)

// x32Bit marks calls of the x32 ABI, which have the same architecture number as x86-64.
const x32Bit = 0x40000000

// program is a filter being written, for one architecture.
type program struct {
	code []byte
	n    int
}

func (p *program) add(op uint16, jt, jf uint8, k uint32) {
	p.code = binary.NativeEndian.AppendUint16(p.code, op)
	p.code = append(p.code, jt, jf)
	p.code = binary.NativeEndian.AppendUint32(p.code, k)
	p.n++
}

// newProgram begins a filter for the calls of one architecture; it lets those of others pass, which have programs
// of their own or are forbidden by SystemCallArchitectures=. Calls of x32 would slip past the numbers: ENOSYS.
func newProgram(m machine) *program {
	p := new(program)
	p.add(bpfLoad, 0, 0, offArch)
	p.add(bpfEqual, 1, 0, m.id)
	p.add(bpfRet, 0, 0, retAllow)
	p.add(bpfLoad, 0, 0, offNumber)
	if m.id == uint32(arch.X86_64.ID) {
		p.add(bpfGE, 0, 1, x32Bit)
		p.add(bpfRet, 0, 0, errno(syscall.ENOSYS))
	}
	return p
}

// when answers a call by number.
func (p *program) when(number int, answer uint32) {
	p.add(bpfEqual, 0, 1, uint32(number))
	p.add(bpfRet, 0, 0, answer)
}

// between answers the calls from low to high, both included.
func (p *program) between(low, high int, answer uint32) {
	p.add(bpfGE, 0, 2, uint32(low))
	p.add(bpfGT, 1, 0, uint32(high))
	p.add(bpfRet, 0, 0, answer)
}

// test is a condition on the low 32 bits of an argument: (arg & mask) == value, or its opposite.
type test struct {
	arg         int
	mask, value uint32
	not         bool
}

// whenArgs answers a call whose arguments pass all tests.
func (p *program) whenArgs(number int, answer uint32, tests ...test) {
	body := 3*len(tests) + 2
	p.add(bpfEqual, 0, uint8(body), uint32(number))
	for i, t := range tests {
		out := uint8(3*(len(tests)-1-i) + 1) // to the reload after the return
		p.add(bpfLoad, 0, 0, argOffset(t.arg))
		p.add(bpfAnd, 0, 0, t.mask)
		if t.not {
			p.add(bpfEqual, out, 0, t.value)
		} else {
			p.add(bpfEqual, 0, out, t.value)
		}
	}
	p.add(bpfRet, 0, 0, answer)
	p.add(bpfLoad, 0, 0, offNumber)
}

// end closes the filter with what every other call is answered.
func (p *program) end(answer uint32) []byte {
	p.add(bpfRet, 0, 0, answer)
	return p.code
}

func argOffset(arg int) uint32 {
	at := uint32(offArgs + 8*arg)
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		at += 4 // big endian: the low half comes second
	}
	return at
}

// machine is what filters need to know of an architecture.
type machine struct {
	id      uint32 // AUDIT_ARCH_*
	numbers map[string]int
}

// machines are the architectures whose programs this machine runs, the one this program is built for first. None means
// that filters cannot be made.
func machines() []machine {
	var all []*arch.Info
	switch runtime.GOARCH {
	case "amd64":
		all = []*arch.Info{arch.X86_64, arch.I386}
	case "arm64":
		all = []*arch.Info{arch.AARCH64, arch.ARM}
	}
	var out []machine
	for _, i := range all {
		out = append(out, machine{uint32(i.ID), i.SyscallNames})
	}
	return out
}

// archIDs are the names of SystemCallArchitectures= with their AUDIT_ARCH_ numbers; x32 shares x86-64's.
// Source: systemd.exec(5), linux/audit.h.
var archIDs = map[string]uint32{
	"x86": 0x40000003, "x86-64": 0xc000003e, "x32": 0xc000003e, "arm": 0x40000028, "arm64": 0xc00000b7,
	"mips": 0x8, "mips64": 0x80000008, "mips64-le": 0xc0000008, "mips-le": 0x40000008, "ppc": 0x14, "ppc64": 0x80000015,
	"ppc64-le": 0xc0000015, "riscv64": 0xc00000f3, "s390": 0x16, "s390x": 0x80000016, "loongarch64": 0xc0000102,
}

// archFilter answers the calls of every architecture that is not listed, nor native, with kill.
func archFilter(names []string) []byte {
	p := new(program)
	p.add(bpfLoad, 0, 0, offArch)
	own := machines()[0].id
	ids := map[uint32]bool{own: true}
	for _, n := range names {
		if id, ok := archIDs[n]; ok {
			ids[id] = true
		}
	}
	list := slices.Sorted(maps.Keys(ids))
	for i, id := range list {
		p.add(bpfEqual, uint8(len(list)-i), 0, id)
	}
	p.add(bpfRet, 0, 0, retKill)
	if own == uint32(arch.X86_64.ID) && !slices.Contains(names, "x32") {
		// Only a call that says x86-64 can be x32's.
		p.add(bpfEqual, 0, 3, own)
		p.add(bpfLoad, 0, 0, offNumber)
		p.add(bpfGE, 0, 1, x32Bit)
		p.add(bpfRet, 0, 0, retKill)
	}
	return p.end(retAllow)
}
