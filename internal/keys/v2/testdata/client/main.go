// Command client uses the keys API with etcd's own Go client of version 2, as an application would, and ends with an error where that
// is not answered as etcd would. It is a module of its own, so that the client is no dependency of the product.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.etcd.io/etcd/client/v2"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("all is well")
}

func run(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.New(client.Config{Endpoints: []string{url}, Transport: client.DefaultTransport})
	if err != nil {
		return err
	}
	if err := c.Sync(ctx); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if v, err := c.GetVersion(ctx); err != nil || v.Server == "" || v.Cluster == "" {
		return fmt.Errorf("version: %v, %w", v, err)
	}
	members := client.NewMembersAPI(c)
	if m, err := members.Leader(ctx); err != nil || m == nil {
		return fmt.Errorf("leader: %v, %w", m, err)
	}
	return keys(ctx, client.NewKeysAPI(c))
}

// keys does one of everything.
func keys(ctx context.Context, k client.KeysAPI) error {
	first, err := k.Set(ctx, "/go/a", "1", &client.SetOptions{TTL: time.Minute})
	if err != nil || first.Action != "set" || first.Node.TTL == 0 {
		return fmt.Errorf("set: %+v, %w", first, err)
	}
	w := k.Watcher("/go", &client.WatcherOptions{Recursive: true, AfterIndex: first.Index - 1})
	if _, err := k.Create(ctx, "/go/a", "2"); !is(err, client.ErrorCodeNodeExist) {
		return fmt.Errorf("create again: %v", err)
	}
	if r, err := k.Update(ctx, "/go/a", "2"); err != nil || r.PrevNode.Value != "1" {
		return fmt.Errorf("update: %+v, %w", r, err)
	}
	if _, err := k.Set(ctx, "/go/a", "3", &client.SetOptions{PrevValue: "no"}); !is(err, client.ErrorCodeTestFailed) {
		return fmt.Errorf("swap: %v", err)
	}
	if r, err := k.CreateInOrder(ctx, "/go/q", "job", nil); err != nil || r.Action != "create" {
		return fmt.Errorf("in order: %+v, %w", r, err)
	}
	if r, err := k.Get(ctx, "/go", &client.GetOptions{Recursive: true, Sort: true, Quorum: true}); err != nil || len(r.Node.Nodes) != 2 {
		return fmt.Errorf("get: %+v, %w", r, err)
	}
	if _, err := k.Delete(ctx, "/go", &client.DeleteOptions{Recursive: true}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	for _, want := range []string{"set", "update", "create", "delete"} {
		r, err := w.Next(ctx)
		if err != nil || r.Action != want {
			return fmt.Errorf("watch: %+v, %w; want %s", r, err, want)
		}
	}
	_, err = k.Watcher("/go", &client.WatcherOptions{AfterIndex: 0}).Next(short(ctx))
	if err == nil {
		return fmt.Errorf("a watch without an event has ended")
	}
	return nil
}

func short(ctx context.Context) context.Context {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	_ = cancel // ends by itself
	return ctx
}

func is(err error, code int) bool {
	e, ok := err.(client.Error)
	return ok && e.Code == code
}
