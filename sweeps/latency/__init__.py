"""Stage times of methods under one protocol (docs/latency.md): no task, no store, weights may be random."""
