//go:build race

package main

// raceDetector says that the machines of tests run with the race detector, which takes several times the memory.
const raceDetector = true
