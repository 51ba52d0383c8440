package keycmd

import (
	"context"
	"encoding/base64"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Item is a key as --json shows it. Value holds text; a value that is not UTF-8 is in Base64 instead.
type Item struct {
	Key      string  `json:"key"`
	Value    *string `json:"value,omitempty"`
	Base64   string  `json:"base64,omitempty"`
	Created  int64   `json:"created,omitempty"`  // revision that made the key
	Revision int64   `json:"revision,omitempty"` // revision that changed it last
	Version  int64   `json:"version,omitempty"`  // changes since it was made, 1 for the first
	Lease    int64   `json:"lease,omitempty"`    // of a key that expires
}

// itemOf shows a key.
func itemOf(kv *mvccpb.KeyValue) Item {
	it := Item{Key: string(kv.Key), Created: kv.CreateRevision, Revision: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
	it.Value, it.Base64 = valueOf(kv.Value)
	return it
}

// valueOf gives text, or Base64 for what is none.
func valueOf(b []byte) (*string, string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}

// readFlags are the flags of commands that only read.
type readFlags struct{ stale bool }

// pageSize is how many keys come in one answer: with values of 1 KB about 1 MB.
const pageSize = 1000

// bounded gives ctx the patience of one request.
func (k *keys) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(k.patience))
}

// fetch gives the keys of s sorted, all as they were at the one revision that it gives too. more are options of each read.
func (k *keys) fetch(ctx context.Context, c *clientv3.Client, s scope, f readFlags, more ...clientv3.OpOption) (all []*mvccpb.KeyValue, rev int64, err error) {
	if f.stale {
		more = append(more, clientv3.WithSerializable())
		k.note("warning: read from one machine's copy, without a quorum; this may be old")
	}
	var last error
	s.each(func(key string, o ...clientv3.OpOption) {
		o = append(o, more...)
		for from := key; from != "" && last == nil; {
			page := append([]clientv3.OpOption{clientv3.WithLimit(pageSize)}, o...)
			if rev > 0 {
				page = append(page, clientv3.WithRev(rev))
			}
			var r *clientv3.GetResponse
			req, cancel := k.bounded(ctx)
			r, last = c.Get(req, from, page...)
			cancel()
			if last != nil {
				break
			}
			if rev == 0 {
				rev = r.Header.Revision
			}
			all = append(all, r.Kvs...)
			from = ""
			if r.More && len(r.Kvs) > 0 {
				from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
			}
		}
	})
	return all, rev, problem(ctx, last)
}
