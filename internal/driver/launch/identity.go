package launch

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"slices"
	"strconv"

	"github.com/moby/sys/user"

	"flota/internal/driver/launch/child"
	"flota/internal/service"
)

// Identity is who a unit runs as, looked up.
type Identity struct {
	Switch bool // User=, Group=, SupplementaryGroups= or DynamicUser= is set, and this process may switch
	UID    int  // the manager's own unless User= or DynamicUser=
	GID    int
	Groups []int  // supplementary ids
	Name   string // of the user; the number in decimal when it has no entry
	Home   string
	Shell  string
}

// Where ids of DynamicUser= are. Source: systemd's UIDS-GIDS document.
const (
	dynamicFirst = 61184
	dynamicLast  = 65519
)

// Identify looks up User=, Group= and SupplementaryGroups= in /etc/passwd and /etc/group. unit is for DynamicUser=: its
// number comes from a hash of the name, so that files keep their owner; two such units on one machine share a number with a chance of
// 1 in 4,336. A process that is not root stays who it is: Host.Honoured says so. Errors are *Failure: 217/USER, 216/GROUP.
func Identify(s *service.Service, unit string) (Identity, error) {
	id := Identity{UID: os.Geteuid(), GID: os.Getegid()}
	want := s.Identity
	if os.Geteuid() != 0 || want.User == "" && want.Group == "" && len(want.Supplementary) == 0 && !want.Dynamic {
		err := id.fromPasswd(strconv.Itoa(id.UID))
		if err != nil {
			id.Name, id.Home, id.Shell = strconv.Itoa(id.UID), "/", "/bin/sh"
		}
		return id, nil
	}
	id.Switch = true
	if err := id.setUser(want, unit); err != nil {
		return id, &Failure{Step: "USER", Code: child.ExitUser, Message: err.Error()}
	}
	if err := id.setGroups(want); err != nil {
		return id, &Failure{Step: "GROUP", Code: child.ExitGroup, Message: err.Error()}
	}
	return id, nil
}

// setUser fills everything but the groups.
func (id *Identity) setUser(want service.Identity, unit string) error {
	name := want.User
	if name == "" && !want.Dynamic {
		name = strconv.Itoa(id.UID)
	}
	err := id.fromPasswd(name)
	if err == nil || !want.Dynamic {
		return err
	}
	if name == "" {
		name = unit
	}
	taken, err := user.ParsePasswdFile("/etc/passwd")
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(name))
	const span = dynamicLast - dynamicFirst + 1
	uid := dynamicFirst + int(binary.BigEndian.Uint32(sum[:])%span)
	for slices.ContainsFunc(taken, func(u user.User) bool { return u.Uid == uid }) {
		uid = dynamicFirst + (uid-dynamicFirst+1)%span
	}
	*id = Identity{Switch: true, UID: uid, GID: uid, Name: name, Home: "/", Shell: "/usr/sbin/nologin"}
	return nil
}

// fromPasswd looks a user up by name or number. A number needs no entry.
func (id *Identity) fromPasswd(name string) error {
	number, err := strconv.Atoi(name)
	byNumber := err == nil
	found, err := user.ParsePasswdFileFilter("/etc/passwd", func(u user.User) bool {
		return u.Name == name || byNumber && u.Uid == number
	})
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	switch {
	case len(found) > 0:
		u := found[0]
		id.UID, id.GID, id.Name, id.Home, id.Shell = u.Uid, u.Gid, u.Name, u.Home, u.Shell
	case byNumber:
		id.UID, id.GID, id.Name, id.Home, id.Shell = number, number, name, "/", "/bin/sh"
	default:
		return &noEntry{"user", name}
	}
	return nil
}

// setGroups fills the primary and the supplementary groups.
func (id *Identity) setGroups(want service.Identity) error {
	all, err := user.ParseGroupFile("/etc/group")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if want.Group != "" {
		gid, err := groupID(all, want.Group)
		switch {
		case err == nil:
			id.GID = gid
		case !want.Dynamic: // a dynamic user brings its group along
			return err
		}
	}
	if want.User == "" && !want.Dynamic {
		id.Groups, _ = os.Getgroups()
	} else {
		id.Groups = []int{id.GID}
		for _, g := range all {
			if slices.Contains(g.List, id.Name) {
				id.Groups = append(id.Groups, g.Gid)
			}
		}
	}
	for _, name := range want.Supplementary {
		gid, err := groupID(all, name)
		if err != nil {
			return err
		}
		id.Groups = append(id.Groups, gid)
	}
	slices.Sort(id.Groups)
	id.Groups = slices.Compact(id.Groups)
	return nil
}

// groupID gives a group's number by name or number. A number needs no entry.
func groupID(all []user.Group, name string) (int, error) {
	for _, g := range all {
		if g.Name == name {
			return g.Gid, nil
		}
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	return 0, &noEntry{"group", name}
}

// noEntry says that a name is not in the user database.
type noEntry struct{ kind, name string }

func (e *noEntry) Error() string { return "there is no " + e.kind + " " + strconv.Quote(e.name) }
