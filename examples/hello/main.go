// Hello is a small HTTP server to try Flota with: it says which instance answers, on which machine.
// Flota gives every unit the environment variables FLOTA_MACHINE and FLOTA_ADDR.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8001", "address to serve HTTP on")
	name := flag.String("name", "hello", "what to call this instance")
	ask := flag.String("ask", "", "do not serve: print what this URL answers")
	flag.Parse()
	if *ask != "" {
		print(*ask)
		return
	}
	started := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from %s on machine %s (pid %d, up %s)\n",
			*name, os.Getenv("FLOTA_MACHINE"), os.Getpid(), time.Since(started).Round(time.Second))
		log.Printf("%s %s %s", r.RemoteAddr, r.Method, r.URL.Path)
	})
	srv := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(wait)
	}()
	log.Printf("%s serves http://%s", *name, *listen)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// print writes what a URL answers to standard output.
func print(url string) {
	c := http.Client{Timeout: 5 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := io.Copy(os.Stdout, io.LimitReader(r.Body, 1<<20)); err != nil {
		log.Fatal(err)
	}
}
