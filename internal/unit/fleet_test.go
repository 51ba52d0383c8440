package unit

import (
	"strings"
	"testing"

	"flota/internal/fault"

	"github.com/google/go-cmp/cmp"
)

// file parses a text that must be good.
func file(t *testing.T, text string) File {
	t.Helper()
	f, _, err := Parse("a.service", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFleet(t *testing.T) {
	tests := []struct {
		text string
		want Fleet
	}{
		{"MachineID=abc\nMachineID=def", Fleet{MachineID: "abc"}},
		{"X-ConditionMachineID=old\nMachineID=new", Fleet{MachineID: "new"}},
		{"X-ConditionMachineBootID=boot\nX-ConditionMachineID=old", Fleet{MachineID: "old"}},
		{"X-ConditionMachineBootID=boot", Fleet{MachineID: "boot"}},
		{"MachineOf=a.service\nMachineOf=b.service c.service\nX-ConditionMachineOf=d.service",
			Fleet{MachineOf: []Name{"d.service", "a.service", "b.service", "c.service"}}},
		{"MachineMetadata=disk=ssd", Fleet{Metadata: map[string][]string{"disk": {"ssd"}}}},
		{`MachineMetadata="region=eu" "region=us" "disk=ssd"` + "\nMachineMetadata=disk=hdd\nX-ConditionMachineMetadata=region=ap",
			Fleet{Metadata: map[string][]string{"region": {"ap", "eu", "us"}, "disk": {"ssd", "hdd"}}}},
		{`MachineMetadata="rack=row 1"`, Fleet{Metadata: map[string][]string{"rack": {"row 1"}}}},
		{"MachineMetadata=a=b=c\nMachineMetadata=x\nMachineMetadata==x\nMachineMetadata=x=\nMachineMetadata=k=v\nMachineMetadata=k=v",
			Fleet{Metadata: map[string][]string{"k": {"v"}}}},
		{"Conflicts=a@*.service b.service\nConflicts=c*\nX-Conflicts=d", Fleet{Conflicts: []string{"d", "a@*.service", "b.service", "c*"}}},
		{"Conflicts=a \\\n  b", Fleet{Conflicts: []string{"a", "b"}}},
		{"Replaces=a@*.service b", Fleet{Replaces: []string{"a@*.service", "b"}}},
		{"Global=false\nGlobal=true", Fleet{Global: true}},
		{"Global=true\nGlobal=false", Fleet{}},
		{"Global=YES", Fleet{Global: true}},
		{"Global=1", Fleet{Global: true}},
		{"Global=t", Fleet{Global: true}},
		{"Global=On", Fleet{Global: true}},
		{"Global=y", Fleet{}},
		{"MachineID=%i\nMachineOf=%p-db@%i.service\nConflicts=%N-x %n\nMachineMetadata=%p=%i",
			Fleet{MachineID: "1", MachineOf: []Name{"web-db@1.service"}, Conflicts: []string{"web@1-x", "web@1.service"},
				Metadata: map[string][]string{"web": {"1"}}}},
		{"MachineID=%%n%q", Fleet{MachineID: "%web@1.service%q"}},
		{"machineid=x\nMachineRam=1", Fleet{}},
	}
	for _, tt := range tests {
		got, err := file(t, "[X-Fleet]\n"+tt.text+"\n").Fleet("web@1.service")
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q: %s", tt.text, diff)
		}
	}
	if got, err := file(t, "[Service]\nGlobal=true\nMachineID=x\n").Fleet("a.service"); err != nil || !cmp.Equal(got, Fleet{}) {
		t.Errorf("options outside [X-Fleet] count: %v, %v", got, err)
	}
}

func TestFleetErrors(t *testing.T) {
	for text, want := range map[string]string{
		"MachineOf=db":        `web.service: [X-Fleet] MachineOf=db: unit name must contain "."`,
		"Conflicts=a [b-":     "web.service: [X-Fleet] Conflicts=[b-: malformed pattern",
		"Replaces=[]a":        "web.service: [X-Fleet] Replaces=[]a: malformed pattern",
		"MachineOf=@.service": `web.service: [X-Fleet] MachineOf=@.service: unit name cannot start in "@"`,
	} {
		f := file(t, "[X-Fleet]\n"+text+"\n")
		if _, err := f.Fleet("web.service"); err == nil || err.Error() != want || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
		if err := Validate("web.service", f); err == nil || err.Error() != want {
			t.Errorf("Validate %s: %v, want %s", text, err, want)
		}
		if _, err := f.Fleet("web@.service"); err != nil { // %i has no value yet
			t.Errorf("%s in a template: %v", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	tests := []struct{ text, want string }{
		{"Conflicts=*", ""},
		{"Global=true\nConflicts=b*", ""},
		{"Global=true\nMachineMetadata=a=b", ""},
		{"MachineID=x\nMachineMetadata=a=b", ""},
		{"MachineOf=b.service\nConflicts=c*", ""},
		{"Unknown=1", ""},
		{"MachineOf=b.service\nConflicts=b*\nGlobal=true", `unresolvable requirements: peer "b.service" matches conflict "b*"`},
		{"MachineOf=b.service\nReplaces=b*", `unresolvable requirements: peer "b.service" matches replace "b*"`},
		{"MachineOf=b-%i.service\nConflicts=b-1*", `unresolvable requirements: peer "b-1.service" matches conflict "b-1*"`},
		{"MachineID=x\nMachineOf=b.service\nConflicts=c\nGlobal=1", "MachineID cannot be used with Peers"},
		{"MachineID=x\nConflicts=c\nGlobal=1", "MachineID cannot be used with Conflicts"},
		{"MachineID=x\nGlobal=1\nReplaces=c", "MachineID cannot be used with Global"},
		{"MachineID=x\nReplaces=c", "MachineID cannot be used with Replaces"},
		{"Global=1\nMachineOf=b.service\nReplaces=c", "Global cannot be used with Peers"},
		{"Global=1\nReplaces=c\nConflicts=d", "Global cannot be used with Replaces"},
		{"Conflicts=c\nReplaces=d", "Conflicts cannot be used with Replaces"},
		{"[X-Flota]\nMemory=lots", `a@1.service: [X-Flota] Memory=: "lots" is not a size (such as 512M, 1.5G or infinity)`},
		{"[X-Flota]\nCPU=many", `a@1.service: [X-Flota] CPU=: "many" is not a number of cores (such as 2, 0.5 or 50%)`},
		{"[X-Flota]\nExclusive=perhaps", `a@1.service: [X-Flota] Exclusive=: "perhaps" is not a boolean (yes or no)`},
		{"Global=1\n[X-Flota]\nExclusive=yes", "Exclusive cannot be used with Global"},
		{"[Service]\nMemoryMax=lots\nCPUQuota=lots", ""},
	}
	for _, tt := range tests {
		err := Validate("a@1.service", file(t, "[X-Fleet]\n"+tt.text+"\n"))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want || !fault.Is(err, fault.Invalid)) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
	if err := Validate("a/b.service", File{}); err == nil {
		t.Error("a bad name passes")
	}
	if err := Validate("a.service", File{Options: []Option{{"", "A", "b"}}}); err == nil {
		t.Error("bad options pass")
	}
}

func TestFleetValuesAreBounded(t *testing.T) {
	for _, key := range []string{"Conflicts", "Replaces", "MachineOf", "MachineMetadata"} {
		most := file(t, "[X-Fleet]\n"+strings.Repeat(key+"=a.service\n", maxValues))
		if err := Validate("a.service", most); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		more := file(t, "[X-Fleet]\n"+strings.Repeat(key+"=a.service\n", maxValues+1))
		want := "a.service: [X-Fleet] " + key + "= has more than 1000 values, or too many specifiers"
		if err := Validate("a.service", more); err == nil || err.Error() != want || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
	specifiers := file(t, "[X-Fleet]\nMachineID="+strings.Repeat("%n", 100_000)+"\n")
	if _, err := specifiers.Fleet("a.service"); !fault.Is(err, fault.Invalid) {
		t.Errorf("specifiers: %v", err)
	}
	words := file(t, "[X-Fleet]\nConflicts="+strings.Repeat("a ", 300_000)+"\n")
	if _, err := words.Fleet("a@.service"); !fault.Is(err, fault.Invalid) {
		t.Errorf("words: %v", err)
	}
}

func TestUnknown(t *testing.T) {
	f := file(t, "[X-Fleet]\nFoo=1\nGlobal=1\nFoo=2\nglobal=1\n[X-Flota]\nCPU=1\nDisk=1\n[Service]\nFoo=1\n[X-Other]\nFoo=1\n")
	if diff := cmp.Diff([]string{"[X-Fleet] Foo", "[X-Fleet] global", "[X-Flota] Disk"}, f.Unknown()); diff != "" {
		t.Error(diff)
	}
}

func TestNeeds(t *testing.T) {
	const mib = 1 << 20
	tests := []struct {
		text string
		want Needs
	}{
		{"", Needs{}},
		{"[Service]\nMemoryMax=64M\nCPUQuota=150%", Needs{64 * mib, 1500}},
		{"[Service]\nMemoryMax=infinity", Needs{}},
		{"[Service]\nMemoryMax=50%", Needs{}},
		{"[Service]\nMemoryMax=64M\nMemoryMax=", Needs{}},
		{"[Service]\nMemoryMax=64M\nMemoryMax=0\nMemoryMax=1g\nMemoryMax=-1", Needs{64 * mib, 0}},
		{"[Service]\nCPUQuota=20%\nCPUQuota=0%\nCPUQuota=30", Needs{0, 200}},
		{"[Service]\nCPUQuota=0.25%", Needs{0, 3}},
		{"[Service]\nMemoryMax=64M\nCPUQuota=150%\n[X-Flota]\nMemory=32M\nCPU=0.5", Needs{32 * mib, 500}},
		{"[Service]\nMemoryMax=64M\nCPUQuota=150%\n[X-Flota]\nMemory=0\nCPU=0", Needs{}},
		{"[Service]\nMemoryMax=64M\n[X-Flota]\nMemory=infinity", Needs{}},
		{"[Service]\nMemoryMax=64M\n[X-Flota]\nMemory=1M\nMemory=", Needs{64 * mib, 0}},
		{"[X-Flota]\nCPU=50%", Needs{0, 500}},
		{"[X-Flota]\nCPU=2", Needs{0, 2000}},
		{"[X-Flota]\nCPU=1.0001", Needs{0, 1001}},
		{"[Container]\nMemory=10M\n[Service]\nMemoryMax=20M", Needs{10 * mib, 0}},
		{"[Container]\nImage=x\n[Service]\nMemoryMax=20M", Needs{20 * mib, 0}},
		{"[X-Fleet]\nMemory=10M", Needs{}},
	}
	for _, tt := range tests {
		got, err := file(t, tt.text+"\n").Needs()
		if err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
	for _, bad := range []string{"Memory=50%", "Memory=1g", "Memory=-1", "CPU=-1", "CPU=1e3", "CPU=.", "CPU=NaN", "CPU=inf", "CPU=9999999999", "CPU=x%", "CPU=1 2"} {
		if got, err := file(t, "[X-Flota]\n"+bad+"\n").Needs(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %+v, %v", bad, got, err)
		}
	}
}

func TestFlota(t *testing.T) {
	got, err := file(t, "[X-Flota]\nExclusive=no\nExclusive=Yes\nCPU=1\n").Flota("a.service")
	if err != nil || got != (Flota{Exclusive: true, Needs: Needs{CPUMillis: 1000}}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = file(t, "[X-Flota]\nExclusive=yes\nExclusive=\n").Flota("a.service")
	if err != nil || got != (Flota{}) {
		t.Errorf("reset: %+v, %v", got, err)
	}
}
