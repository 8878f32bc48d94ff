"""Prometheus metrics from greentls.events. They need prometheus-client: ``pip install greentls[prometheus]``.

    greentls.events.handler = greentls.prometheus.Metrics()

Labels have a bounded number of values. None is a name, address or text that a peer could choose.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from greentls.events import Event

__all__ = ["Metrics"]

# Seconds, from a lookup in the same process to the longest allowed handshake.
BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """A handler for greentls.events. Make one for each registry. Unknown events are ignored.

    Counters: greentls_handshakes_total{side, version, resumption},
    greentls_handshake_failures_total{side, error: the exception's class},
    greentls_signatures_total{side, algorithm, outcome: done or the exception's class},
    greentls_ticket_key_refreshes_total{source, outcome: changed or error}.
    Histograms: greentls_handshake_seconds{side}, greentls_hook_seconds{hook},
    greentls_session_store_seconds{store, operation, outcome},
    greentls_ocsp_fetch_seconds{side, outcome: the response's status or error}.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"greentls_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, *labels: str) -> Histogram:
            return Histogram(f"greentls_{name}_seconds", help, labels, registry=registry, buckets=BUCKETS)

        self._handshakes = counter("handshakes", "Finished handshakes", "side", "version", "resumption")
        self._failures = counter("handshake_failures", "Failed handshakes by exception", "side", "error")
        self._duration = histogram("handshake", "Duration of a handshake", "side")
        self._hooks = histogram("hook", "Duration of a hook in one handshake", "hook")
        self._store = histogram("session_store", "Calls of a session store", "store", "operation", "outcome")
        self._fetches = histogram("ocsp_fetch", "Requests to OCSP responders", "side", "outcome")
        self._signatures = counter("signatures", "Requests to signing keys", "side", "algorithm", "outcome")
        self._keys = counter("ticket_key_refreshes", "Ticket key refreshes with changes or errors", "source", "outcome")

    def __call__(self, event: Event) -> None:
        if event["event"] == "handshake":
            side = event["side"]
            if event["error"] is None:
                self._handshakes.labels(side, event["version"], event["resumption"]).inc()
            else:
                self._failures.labels(side, type(event["error"]).__name__).inc()
            self._duration.labels(side).observe(event["seconds"])
            for hook, seconds in event["hooks"].items():
                self._hooks.labels(hook).observe(seconds)
        elif event["event"] == "session_store":
            self._store.labels(event["store"], event["operation"], event["outcome"]).observe(event["seconds"])
        elif event["event"] == "ocsp_fetch":
            self._fetches.labels(event["side"], event["status"] or "error").observe(event["seconds"])
        elif event["event"] == "signature":
            outcome = "done" if event["error"] is None else type(event["error"]).__name__
            self._signatures.labels(event["side"], event["algorithm"], outcome).inc()
        elif event["event"] == "ticket_keys":
            self._keys.labels(event["source"], "changed" if event["error"] is None else "error").inc()
