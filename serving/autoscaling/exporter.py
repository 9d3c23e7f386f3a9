"""The policy's numbers over HTTP: `/metrics` for Prometheus, `/desired/MODEL` for KEDA's metrics-api, `/health/live`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from serving.autoscaling.advice import Adviser, as_json, prometheus_text
from serving.autoscaling.signal import Signal

_DECIDE_EVERY_S = 1.0
_JSON = "application/json"


class Exporter:
    """Asks the gateway, decides once a second, and answers scrapes, each in threads of their own. Use as `with`.

    Raises OSError where the port is taken.
    """

    def __init__(self, host: str, port: int, demand_url: str, advisers: Mapping[str, Adviser]) -> None:
        self._advisers = advisers
        self._signal = Signal(demand_url)
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer((host, port), _handler(advisers))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=self._decide, daemon=True),
        ]

    def __enter__(self) -> Exporter:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def wait(self) -> None:
        """Until a signal's handler raises."""
        while not self._stop.wait(3600.0):
            pass

    def _decide(self) -> None:
        while True:
            for model, adviser in self._advisers.items():
                adviser.hear(self._signal.demand(model), time.monotonic())
            if self._stop.wait(_DECIDE_EVERY_S):
                return


def _handler(advisers: Mapping[str, Adviser]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30.0  # seconds that a connection may be idle

        def do_GET(self) -> None:
            if self.path == "/metrics":
                advice = [one.advice for one in advisers.values()]
                self._answer(200, prometheus_text([known for known in advice if known is not None]), CONTENT_TYPE_PLAIN_0_0_4)
            elif self.path == "/health/live":
                self._answer(200, "{}", _JSON)
            elif self.path.startswith("/desired/"):
                self._desired(self.path.removeprefix("/desired/"))
            else:
                self._answer(404, '{"error": "there are /metrics, /desired/MODEL and /health/live"}', _JSON)

        def _desired(self, model: str) -> None:
            adviser = advisers.get(model)
            if adviser is None:
                self._answer(404, '{"error": "no such model is scaled; /metrics names those that are"}', _JSON)
            elif adviser.advice is None:
                self._answer(503, '{"error": "the gateway does not say what is asked; keep the replicas there are"}', _JSON)
            else:
                self._answer(200, as_json(adviser.advice), _JSON)

        def _answer(self, status: int, text: str, content_type: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Scrapes are not news."""

    return Handler
