package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"flota/internal/store"
)

const secret = "SECRET"

// private are keys around the space that no application may see or change. Their names and values hold the secret.
var private = []string{"flota/machines/" + secret, "a" + secret, "user" + secret, "user/../" + secret, "user0" + secret, "user.SECRET", "zz" + secret, "\x00" + secret}

// TestConfinement tries every method of every service that is registered, with every kind of key, range and lease outside of the space in every
// field that could hold one, on a voter and on a machine without a member.
func TestConfinement(t *testing.T) {
	b := newBed(t, 1, true, nil)
	ctx := patientCtx(t)
	raw := v3client.New(b.boxes[0].node.Server())
	t.Cleanup(func() { _ = raw.Close() })
	lease, err := b.boxes[0].node.KV().Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	seed(t, b, raw, lease)
	before := dump(t, raw)
	services := b.boxes[0].front.grpc.GetServiceInfo()
	if len(services) < 9 {
		t.Fatalf("only %d services", len(services))
	}
	for i := range b.boxes {
		cc, err := grpc.NewClient("passthrough:///"+b.boxes[i].addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		for service, info := range services {
			for _, m := range info.Methods {
				name := "/" + service + "/" + m.Name
				t.Run(fmt.Sprint(i, name), func(t *testing.T) { attack(t, ctx, cc, name, int64(lease), raw) })
			}
		}
	}
	if after := dump(t, raw); after != before {
		t.Errorf("what is private has changed from\n%s\nto\n%s", before, after)
	}
	if err := b.boxes[0].node.KV().Renew(ctx, lease); err != nil {
		t.Errorf("the cluster's lease: %v", err)
	}
}

// seed writes what is private, and an application's keys beside it.
func seed(t *testing.T, b *bed, raw *clientv3.Client, lease store.LeaseID) {
	t.Helper()
	ctx := patientCtx(t)
	for _, k := range private {
		if strings.HasPrefix(k, space) {
			continue // lies in the space, whatever it looks like
		}
		if _, err := raw.Put(ctx, k, secret, clientv3.WithLease(clientv3.LeaseID(lease))); err != nil {
			t.Fatal(err)
		}
	}
	c := b.dial(0)
	for _, k := range []string{"a", "b/c", "zz", "user", "user/x", "flota/y"} {
		if _, err := c.Put(ctx, k, "mine"); err != nil {
			t.Fatal(err)
		}
	}
}

// dump gives what is private with all revisions.
func dump(t *testing.T, raw *clientv3.Client) string {
	t.Helper()
	var all strings.Builder
	for _, span := range [][2]string{{"\x00", space}, {spaceEnd, "\x00"}} {
		resp, err := raw.Get(patientCtx(t), span[0], clientv3.WithRange(span[1]))
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			fmt.Fprintln(&all, kv)
		}
	}
	users, err := raw.UserList(patientCtx(t))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&all, users.Users)
	members, err := raw.MemberList(patientCtx(t))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&all, members.Members)
	return all.String()
}

// attack calls one method with many requests.
func attack(t *testing.T, ctx context.Context, cc *grpc.ClientConn, name string, lease int64, raw *clientv3.Client) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(name[1:], "/", ".")))
	if err != nil {
		t.Fatal(err)
	}
	md := d.(protoreflect.MethodDescriptor)
	in, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	out, err := protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for req := range requests(in, lease, 0) {
		n++
		answers, err := call(ctx, cc, md, name, req, out, raw)
		if _, ok := allowed[name]; !ok {
			if c := status.Code(err); c != codes.PermissionDenied {
				t.Fatalf("%v gives %v", req, err)
			}
		}
		text := fmt.Sprint(err)
		for _, a := range answers {
			text += prototext.MarshalOptions{}.Format(a)
			if strings.HasSuffix(name, "/LeaseLeases") && strings.Contains(text, fmt.Sprint(lease)) {
				t.Fatalf("the cluster's lease is told of: %s", text)
			}
		}
		if strings.Contains(strings.ReplaceAll(text, prototext.MarshalOptions{}.Format(req), ""), secret) {
			t.Fatalf("%v gives %s", req, text)
		}
	}
	if n == 0 {
		t.Fatal("no request was tried")
	}
}

// requests gives messages with keys, ranges and leases from outside in each field.
func requests(mt protoreflect.MessageType, lease int64, depth int) func(yield func(proto.Message) bool) {
	keys := []string{"", "\x00", "user/", "user0", "user", "../flota/machines/", "flota/machines/", "flota/", "zz"}
	ends := []string{"", "\x00", "user0", "\xff", "zzzz", "flota0"}
	return func(yield func(proto.Message) bool) {
		for _, k := range keys {
			for _, e := range ends {
				for _, id := range []int64{lease, 0, -lease} {
					if !yield(fill(mt, k, e, id, depth).Interface()) {
						return
					}
				}
			}
		}
		yield(mt.New().Interface())
	}
}

// fill makes a message: every field of bytes or text is the key or the end, every number the lease, every message filled as well. Of fields that
// exclude each other the last stays.
func fill(mt protoreflect.MessageType, key, end string, lease int64, depth int) protoreflect.Message {
	m := mt.New()
	fields := mt.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.IsMap() || depth > 4 {
			continue
		}
		v, ok := value(m, f, key, end, lease, depth)
		if !ok {
			continue
		}
		if f.IsList() {
			l := m.Mutable(f).List()
			l.Append(v)
			if f.Message() != nil && f.Message().Name() == "RequestOp" { // one of each kind
				variants(l, key, end, lease, depth)
			}
			continue
		}
		m.Set(f, v)
	}
	return m
}

// variants adds one RequestOp of each kind but the last, which is there.
func variants(l protoreflect.List, key, end string, lease int64, depth int) {
	fields := l.NewElement().Message().Descriptor().Fields()
	for i := range fields.Len() - 1 {
		op := l.NewElement()
		f := fields.Get(i)
		if v, ok := value(op.Message(), f, key, end, lease, depth+1); ok {
			op.Message().Set(f, v)
			l.Append(op)
		}
	}
}

func value(m protoreflect.Message, f protoreflect.FieldDescriptor, key, end string, lease int64, depth int) (protoreflect.Value, bool) {
	var s string
	switch name := string(f.Name()); {
	case name == "range_end":
		s = end
	case strings.Contains(name, "value"):
		s = "overwritten"
	default:
		s = key
	}
	switch f.Kind() {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(s)), true
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), true
	case protoreflect.Int64Kind:
		if n := string(f.Name()); n == "ID" || n == "lease" {
			return protoreflect.ValueOfInt64(lease), true
		}
	case protoreflect.Uint64Kind:
		if f.Name() == "ID" {
			return protoreflect.ValueOfUint64(1), true
		}
	case protoreflect.BoolKind:
		if n := f.Name(); n == "prev_kv" || n == "keys" || n == "serializable" || n == "progress_notify" {
			return protoreflect.ValueOfBool(true), true
		}
	case protoreflect.MessageKind:
		var inner protoreflect.Message
		if f.IsList() {
			inner = m.NewField(f).List().NewElement().Message()
		} else {
			inner = m.NewField(f).Message()
		}
		return protoreflect.ValueOfMessage(fill(inner.Type(), key, end, lease, depth+1)), true
	}
	return protoreflect.Value{}, false
}

// patienceWith is how long a method is waited for: streams go on for ever, locks and elections until somebody lets go.
func patienceWith(name string) time.Duration {
	if k := allowed[name]; k == stream || strings.HasSuffix(name, "/Lock") || strings.HasSuffix(name, "/Campaign") {
		return 10 * time.Millisecond
	}
	return 10 * time.Second
}

// call carries one call out; of a stream it takes what comes within a moment, in which private keys change.
func call(ctx context.Context, cc *grpc.ClientConn, md protoreflect.MethodDescriptor, name string, req proto.Message, out protoreflect.MessageType, raw *clientv3.Client) ([]proto.Message, error) {
	if c, ok := req.(*pb.WatchRequest); ok && c.GetRequestUnion() == nil {
		return nil, nil // nothing is asked for, nothing answers
	}
	ctx, cancel := context.WithTimeout(ctx, patienceWith(name))
	defer cancel()
	if !md.IsStreamingClient() && !md.IsStreamingServer() {
		resp := out.New().Interface()
		err := cc.Invoke(ctx, name, req, resp)
		return []proto.Message{resp}, err
	}
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return nil, err
	}
	_ = s.SendMsg(req) // RecvMsg tells
	if strings.HasSuffix(name, "/Watch") {
		_, _ = raw.Put(ctx, "zz"+secret+"changing", secret)
		_, _ = raw.Delete(ctx, "zz"+secret+"changing")
	}
	var all []proto.Message
	for {
		resp := out.New().Interface()
		if err := s.RecvMsg(resp); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, resp)
	}
}
