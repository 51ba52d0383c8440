package machine

import "time"

// Role is a machine's part in the store. The zero value is a client: no copy, no vote.
type Role string

// The roles.
const (
	Client  Role = ""
	Learner Role = "learner" // holds a copy that follows the voters', and does not vote
	Voter   Role = "voter"   // holds a copy and votes
)

// Vote is what a machine is wanted to be in the store. Stored at voters/<id>; the steward (room voter, on the leading machine) writes it,
// and the machine itself follows it. A machine without one is a client.
type Vote struct {
	Machine ID   `json:"machine"`
	Role    Role `json:"role"`
	// Member is the ID that the store's engine gave to the machine's member, in hex; a machine that holds another one sets its data aside.
	Member string `json:"member"`
	// Peers are the members that the machine's own is started beside, member name to host:port, itself among them.
	Peers  map[string]string `json:"peers,omitempty"`
	Since  time.Time         `json:"since"`
	Reason string            `json:"reason"`
}

// Gone remembers a machine that was removed, so that its certificate opens nothing and it is told why. Stored at removed/<id>; the api
// writes it. Kept for 30 days, four times the life of a certificate.
type Gone struct {
	ID     ID        `json:"id"`
	Name   string    `json:"name"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Cluster is what the cluster knows of itself. Stored at cluster/this; the api writes it, the first machine makes it.
type Cluster struct {
	ID      string    `json:"id"`    // 32 lower-case hex digits, made with the cluster
	Epoch   int       `json:"epoch"` // raised by each recovery and restore: machines of a lower epoch set their copies of the store aside
	Created time.Time `json:"created"`
	// Trust holds the certificates of the authorities that are trusted now, PEM, the issuing one first. More than one only while the
	// authority is being changed.
	Trust string `json:"trust,omitempty"`
	// Rotation is the step of a change of the authority; "" when there is none.
	Rotation string `json:"rotation,omitempty"`
	Backup   Backup `json:"backup,omitzero"`
}

// Backup says how each voter keeps copies of the store on its own disk. The zero value is the default: every 12 hours, 5 kept.
type Backup struct {
	Every      time.Duration `json:"every,omitempty"`      // 0: 12 h; negative: none
	Keep       int           `json:"keep,omitempty"`       // newest copies that stay; 0: 5
	Recipients []string      `json:"recipients,omitempty"` // age recipients to encrypt to; none: readable, as the store itself is on that disk
}
