package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"flota/internal/admit"
	"flota/internal/keys/token"
	"flota/internal/machine"
	"flota/internal/trust"
	jointoken "flota/internal/trust/token"
)

// schema is as much of an OpenAPI schema as the tests look at.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       any                `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
}

// operation is one method of a path.
type operation struct {
	Summary     string                     `json:"summary"`
	RequestBody any                        `json:"requestBody"`
	Responses   map[string]json.RawMessage `json:"responses"`
}

func readDocument(t *testing.T) (paths map[string]map[string]operation, schemas map[string]*schema) {
	t.Helper()
	var doc struct {
		OpenAPI    string                          `json:"openapi"`
		Paths      map[string]map[string]operation `json:"paths"`
		Components struct {
			Schemas map[string]*schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi %q", doc.OpenAPI)
	}
	return doc.Paths, doc.Components.Schemas
}

func TestDocumentHasAllRoutes(t *testing.T) {
	paths, schemas := readDocument(t)
	var documented, served []string
	for p, methods := range paths {
		for m, op := range methods {
			documented = append(documented, strings.ToUpper(m)+" "+p)
			if op.Summary == "" || op.Responses["default"] == nil {
				t.Errorf("%s %s: no summary, or no default response", m, p)
			}
			if needs := m == "put" || m == "post" || m == "patch"; needs != (op.RequestBody != nil) {
				t.Errorf("%s %s: request body", m, p)
			}
		}
	}
	for _, r := range (&Server{}).table() {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented %q\nserved     %q", documented, served)
	}
	for _, m := range strings.Split(string(openAPI), `"$ref": "#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(m, `"`)
		if schemas[name] == nil {
			t.Errorf("there is no schema %q", name)
		}
	}
}

// The schemas name exactly the fields that the Go types have on the wire.
func TestDocumentHasAllFields(t *testing.T) {
	_, schemas := readDocument(t)
	for name, v := range map[string]any{
		"Unit": Unit{}, "Place": Place{}, "State": State{}, "Machine": Machine{}, "Status": Status{}, "PutUnit": PutUnit{},
		"SetTarget": SetTarget{}, "Why": Why{}, "Event": Event{}, "PlanRequest": PlanRequest{}, "Plan": Plan{}, "LogLine": LogLine{},
		"Problem": Problem{}, "UnitList": List[Unit]{}, "MachineList": List[Machine]{}, "PatchMachine": PatchMachine{},
		"RebalanceRequest": RebalanceRequest{}, "Release": Release{},
		"Health": Health{}, "Standing": machine.Standing{}, "Step": Step{}, "Remove": Remove{}, "Backup": machine.Backup{}, "ClusterInfo": ClusterInfo{},
		"Trust": Trust{}, "Certificate": Certificate{}, "NewJoinToken": admit.NewToken{}, "JoinToken": jointoken.Token{}, "JoinTokenList": List[jointoken.Token]{},
		"JoinTokenMade": admit.Created{}, "JoinRequest": admit.JoinRequest{}, "JoinAnswer": admit.JoinAnswer{}, "RenewRequest": RenewRequest{},
		"Grant": trust.Grant{}, "Keys": Keys{},
		"KeyToken": token.Token{}, "KeyPrefix": token.Prefix{}, "KeyTokenList": List[token.Token]{}, "MakeKeyToken": MakeKeyToken{}, "MadeKeyToken": MadeKeyToken{},
	} {
		if schemas[name] == nil {
			t.Errorf("no schema %s", name)
			continue
		}
		compare(t, name, schemas, schemas[name], reflect.TypeOf(v))
	}
}

// compare checks s against the type, into its fields.
func compare(t *testing.T, where string, schemas map[string]*schema, s *schema, typ reflect.Type) {
	t.Helper()
	if s == nil {
		t.Errorf("%s is not described", where)
		return
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = schemas[name]
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Uint8: // base64
		return
	case typ.Kind() == reflect.Slice:
		compare(t, where+"[]", schemas, s.Items, typ.Elem())
		return
	case typ.Kind() != reflect.Struct || typ.PkgPath() == "time":
		return
	}
	fields := wireFields(typ)
	have, want := slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(fields))
	if !slices.Equal(have, want) {
		t.Errorf("%s: described %q, sent %q", where, have, want)
		return
	}
	for name, f := range fields {
		if name == "put" {
			continue // a move's, which is never sent
		}
		compare(t, where+"."+name, schemas, s.Properties[name], f)
	}
}

// wireFields gives the fields that encoding/json writes.
func wireFields(typ reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
		case f.Anonymous && name == "":
			for n, ft := range wireFields(f.Type) {
				if _, over := out[n]; !over {
					out[n] = ft
				}
			}
		case name == "":
			out[f.Name] = f.Type
		default:
			out[name] = f.Type
		}
	}
	return out
}
