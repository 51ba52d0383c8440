package unit

// CurrentState gives the state of a unit as fleet shows it: inactive while it has no place or its machine has
// reported nothing, loaded once the machine has it, launched once a start was carried out, be the unit running or
// failed. place is the unit's place that is not leaving, st what that machine reports; nil for none. fleet shows no
// current state for global units.
//
// A unit whose target is launched is launched only when the start last asked for (u.Run) was carried out, so a
// client that waits sees the new start and not the old. A unit that is to stop stays launched until it has stopped.
// Source: facts on fleet, section 3.4; fleet's heartbeat is our State.Run.
func CurrentState(u Unit, place *Place, st *State) Target {
	if place == nil || st == nil || st.Machine != place.Machine {
		return Inactive
	}
	if u.Target == Launched {
		if st.Run != 0 && st.Run == u.Run {
			return Launched
		}
		return Loaded
	}
	switch st.Active {
	case "active", "reloading", "activating", "deactivating":
		return Launched
	}
	return Loaded
}
