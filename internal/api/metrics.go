package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"flota/internal/store"
)

// scrapePatience bounds what a scrape asks of the store, which is the local copy where there is one.
const scrapePatience = 2 * time.Second

// metrics is what /metrics shows: the cluster as this machine sees it, and this process.
type metrics struct {
	s        *Server
	requests *prometheus.CounterVec

	machines, units, places, leader, quorum, members *prometheus.Desc
}

// newMetrics registers everything with the server's registry. It panics if that was done before: a registry serves one Server.
func newMetrics(s *Server) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("flota_"+name, help, labels, nil)
	}
	m := &metrics{
		s: s,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flota_http_requests_total",
			Help: "Requests answered by the API, by route, method and status (0: broken off before an answer)."},
			[]string{"route", "method", "code"}),
		machines: desc("machines", "Machines of the cluster by status.", "status"),
		units:    desc("units", "Units of the cluster by state.", "state"),
		places:   desc("places", "Units placed, by machine.", "machine"),
		leader:   desc("leader", "1 if this machine leads the cluster."),
		quorum:   desc("store_quorum", "1 if a quorum of the store answers this machine."),
		members:  desc("store_members", "Members of the store by role.", "role"),
	}
	s.Metrics.MustRegister(m, m.requests, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// request counts one answered request.
func (m *metrics) request(route, method string, status int) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
}

// handler serves the metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.s.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.machines, m.units, m.places, m.leader, m.quorum, m.members} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Without an answer of the store only its health is told.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapePatience)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	h := m.s.Store.KV.Health(ctx)
	gauge(m.quorum, number(h.Quorum))
	learners := 0
	for _, x := range h.Members {
		if x.Learner {
			learners++
		}
	}
	gauge(m.members, float64(len(h.Members)-learners), "voter")
	gauge(m.members, float64(learners), "learner")
	items, _, err := m.s.Store.KV.List(ctx, store.Prefix, store.Read{Stale: true})
	if err != nil {
		return
	}
	c := newCluster()
	for _, it := range items {
		c.take(m.s.Store, it)
	}
	c.sort()
	gauge(m.leader, number(c.leader == m.s.ID))
	statuses, states, n := map[string]int{}, map[string]int{}, c.counts()
	for _, x := range c.sorted() {
		statuses[c.status(x)]++
		gauge(m.places, float64(n[x.ID]), c.name(x.ID))
	}
	for name := range c.units {
		waiting := ""
		if c.misses(name) && len(c.places[name]) == 0 {
			waiting = "no place"
		}
		states[c.word(name, waiting)]++
	}
	for k, v := range statuses {
		gauge(m.machines, float64(v), k)
	}
	for k, v := range states {
		gauge(m.units, float64(v), k)
	}
}

// number is 1 for yes and 0 for no.
func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
