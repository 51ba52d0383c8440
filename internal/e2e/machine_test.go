package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
)

// answer is what the fleet API gave.
type answer struct {
	code int
	kind string // Content-Type
	body string
}

// ask sends a request to the fleet API on a machine's socket.
func (b *bed) ask(t *testing.T, i int, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://fleet/fleet/v1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http(i).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), string(text)}
}

// fleetMachine is a machine in the fleet API.
type fleetMachine struct {
	ID        string
	PrimaryIP string
	Metadata  map[string]string
}

// fleetMachines lists the machines by the fleet API.
func (b *bed) fleetMachines(t *testing.T) []fleetMachine {
	t.Helper()
	a := b.ask(t, 1, "GET", "/machines", "")
	var list struct{ Machines []fleetMachine }
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.code != http.StatusOK {
		t.Fatalf("%+v: %v", a, err)
	}
	return list.Machines
}

func TestMachinesList(t *testing.T) {
	b := borrow(t)
	if a := b.ask(t, 2, "GET", "/machines?alt=json", ""); a.code != http.StatusOK || a.kind != "application/json" {
		t.Errorf("%+v", a)
	}
	for i, m := range b.fleetMachines(t) {
		if len(m.ID) != 32 || !strings.HasPrefix(m.PrimaryIP, b.base+".") {
			t.Errorf("machine %d is %+v", i, m)
		}
	}
}

func TestMachinesListBadNextPageToken(t *testing.T) {
	b := borrow(t)
	if a := b.ask(t, 1, "GET", "/machines?nextPageToken=EwBMLg==", ""); a.code != http.StatusBadRequest || a.kind != "application/json" {
		t.Errorf("%+v", a)
	}
}

// patch sends operations; each is op, machine, key and value ("" for none).
func (b *bed) patch(t *testing.T, ops ...[4]string) answer {
	t.Helper()
	var list []string
	for _, o := range ops {
		value := ""
		if o[3] != "" {
			value = fmt.Sprintf(`,"value":{"value":%q}`, o[3])
		}
		list = append(list, fmt.Sprintf(`{"op":%q,"path":"/%s/metadata/%s"%s}`, o[0], o[1], o[2], value))
	}
	return b.ask(t, 1, "PATCH", "/machines", "["+strings.Join(list, ",")+"]")
}

// waitMetadata waits until each machine has just the metadata wanted, besides what it has of itself.
func (b *bed) waitMetadata(t *testing.T, own, want map[string]map[string]string) {
	t.Helper()
	wait(t, "metadata", func() error {
		for _, m := range b.fleetMachines(t) {
			all := maps.Clone(own[m.ID])
			maps.Copy(all, want[m.ID])
			if !maps.Equal(m.Metadata, all) {
				return fmt.Errorf("%s has %v, want %v", m.ID, m.Metadata, all)
			}
		}
		return nil
	})
}

func TestMachinesPatchAddModify(t *testing.T) {
	b := borrow(t)
	own := map[string]map[string]string{}
	var ids []string
	for _, m := range b.fleetMachines(t) {
		own[m.ID] = m.Metadata
		ids = append(ids, m.ID)
	}
	a := b.patch(t, [4]string{"add", ids[0], "disk", "slow"}, [4]string{"add", ids[1], "disk", "ssd"},
		[4]string{"replace", ids[0], "disk", "ssd"}, [4]string{"replace", ids[1], "rack", "b"})
	if a.code != http.StatusNoContent {
		t.Fatalf("%+v", a)
	}
	b.waitMetadata(t, own, map[string]map[string]string{ids[0]: {"disk": "ssd"}, ids[1]: {"disk": "ssd", "rack": "b"}})
}

func TestMachinesPatchDelete(t *testing.T) {
	b := borrow(t)
	own := map[string]map[string]string{}
	var ids []string
	for _, m := range b.fleetMachines(t) {
		own[m.ID] = m.Metadata
		ids = append(ids, m.ID)
	}
	if a := b.patch(t, [4]string{"add", ids[0], "disk", "ssd"}, [4]string{"add", ids[1], "rack", "b"}); a.code != http.StatusNoContent {
		t.Fatalf("%+v", a)
	}
	b.waitMetadata(t, own, map[string]map[string]string{ids[0]: {"disk": "ssd"}, ids[1]: {"rack": "b"}})
	if a := b.patch(t, [4]string{"remove", ids[0], "disk"}, [4]string{"remove", ids[1], "rack"}); a.code != http.StatusNoContent {
		t.Fatalf("%+v", a)
	}
	b.waitMetadata(t, own, nil)
}

// TestMachinesPatchBad sends what is refused as a whole.
func TestMachinesPatchBad(t *testing.T) {
	b := borrow(t)
	id := b.fleetMachines(t)[0].ID
	for what, body := range map[string]string{
		"operation": `[{"op":"noop","path":"/` + id + `/metadata/a","value":{"value":"b"}}]`,
		"path":      `[{"op":"add","path":"/` + id + `/a","value":{"value":"b"}}]`,
		"no value":  `[{"op":"add","path":"/` + id + `/metadata/a"}]`,
		"second":    `[{"op":"add","path":"/` + id + `/metadata/a","value":{"value":"b"}},{"op":"noop","path":"/` + id + `/metadata/a"}]`,
		"no JSON":   `add`,
	} {
		if a := b.ask(t, 1, "PATCH", "/machines", body); a.code != http.StatusBadRequest || a.kind != "application/json" {
			t.Errorf("%s: %+v", what, a)
		}
	}
	if m := b.fleetMachines(t)[0]; m.Metadata["a"] != "" {
		t.Errorf("something of it was done: %+v", m)
	}
}

// TestNodeShutdown shuts a machine down: it leaves the list, nothing reports its unit, and the unit's process has ended.
func TestNodeShutdown(t *testing.T) {
	b := newCluster(t, 2)
	unit := "pin@" + b.machineOf(t, "m2") + ".service"
	b.fleetctl(t, "start", fixture(unit))
	b.waitActive(t, 1)
	pid := b.unit(t, unit).States[0].MainPID
	b.flota(t, "dev", "stop", "m2")
	b.waitMachines(t, 1)
	b.waitActive(t, 0)
	if states := b.unit(t, unit).States; len(states) > 0 {
		t.Errorf("%s is still reported: %+v", unit, states)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Errorf("process %d of %s still runs", pid, unit)
	}
}

// TestDynamicClusterNewMemberUnitMigration shuts down one of four machines: its unit, and no other, moves to the free one.
func TestDynamicClusterNewMemberUnitMigration(t *testing.T) {
	b := newCluster(t, 4)
	b.startAll(t, "rival.0.service", "rival.1.service", "rival.2.service")
	before := b.waitActive(t, 3)
	distinct(t, before)
	lost := one(t, before, "rival.1.service")
	b.flota(t, "dev", "stop", b.nameOf(t, lost))
	b.waitMachines(t, 3)
	after := b.waitActive(t, 3)
	distinct(t, after)
	for u := range before {
		moved := one(t, before, u) != one(t, after, u)
		if moved != (u == "rival.1.service") {
			t.Errorf("%s: before %v, after %v", u, before[u], after[u])
		}
	}
}

// TestDynamicClusterMemberReboot replaces a machine by a new one, which has nothing of the old but its name: one unit migrates.
func TestDynamicClusterMemberReboot(t *testing.T) {
	b := newCluster(t, 4)
	b.startAll(t, "rival.0.service", "rival.1.service", "rival.2.service", "rival.3.service")
	before := b.waitActive(t, 4)
	distinct(t, before)
	b.flota(t, "dev", "kill", "m4")
	b.waitMachines(t, 3)
	if err := os.RemoveAll(b.machineDir(4)); err != nil {
		t.Fatal(err)
	}
	b.flota(t, "machine", "remove", "m4")
	b.flota(t, "dev", "start", "m4")
	after := b.waitActive(t, 4)
	distinct(t, after)
	moved := 0
	for u := range before {
		if one(t, before, u) != one(t, after, u) {
			moved++
		}
	}
	if moved != 1 {
		t.Errorf("%d units have migrated: before %v, after %v", moved, before, after)
	}
}
