"""The rollout benchmark counts what failed, and says where a promise is not kept; its clients count honestly."""

from __future__ import annotations

import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.packaging import Figure
from benchmarks.rollout import Measured, plan_figures, render_report
from benchmarks.rollout_ground import Moved
from benchmarks.rollout_scale import Durations, Idleness, measure_planning
from benchmarks.rollout_scenarios import Tally
from benchmarks.steady_load import SteadyLoad


def _tally(name: str, *, failed: int = 0, problems: list[str] | None = None) -> Tally:
    failures = Counter({"status 503": failed} if failed else {})
    moves = [Moved(2.0, "successful"), Moved(3.0, "successful")]
    return Tally(name, 2, 900, failures, moves=moves, problems=problems or [])


def _figure(figures: list[Figure], part: str) -> Figure:
    (found,) = [figure for figure in figures if part in figure.name]
    return found


def test_one_failed_request_breaks_the_promise() -> None:
    figures = plan_figures(Measured(ours=[_tally("version changes"), _tally("scalings", failed=1)]))
    assert not _figure(figures, "failed requests in all changes").is_kept
    assert _figure(figures, "did not end as they should").is_kept


def test_what_compose_lost_stands_beside_ours_and_promises_nothing() -> None:
    measured = Measured(ours=[_tally("version changes")], compose=[_tally("version changes", failed=70)])
    figure = _figure(plan_figures(measured), "stock Compose")
    assert (figure.measured, figure.is_kept) == (70, True)
    report = render_report(plan_figures(measured), measured, "Measured today.\n")
    assert "| version changes | 2 | 900 | 0 | 2.5 s (2.0–3.0) | 70 | 970 | 2.5 s (2.0–3.0) |" in report
    assert "* Compose, version changes: 70 × status 503" in report


def test_calls_that_grow_with_the_services_break_the_promise() -> None:
    idle = [Idleness(10, 0.2, 5, 0.5, 14, None, 0), Idleness(100, 0.4, 50, 0.6, 14, 1.0, 0)]
    figures = plan_figures(Measured(idle=idle, durations=Durations(4.0, [4.0], [5.0])))
    assert not _figure(figures, "engine calls").is_kept
    assert _figure(figures, "100 services").is_kept
    assert _figure(figures, "own time to ready").measured == 1.25


def test_planning_is_measured_with_nothing_to_do_and_with_everything_replaced() -> None:
    assert set(measure_planning(20, repeats=1)) == {"nothing to do", "all replaced"}


class _Handler(BaseHTTPRequestHandler):
    """Answers 200, then 503, then breaks the connection off, then hangs up after a good answer, over and over."""

    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self) -> None:
        super().setup()
        type(self).connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        kind = int(self.path.rpartition("/")[2])
        if kind == 1:
            self.close_connection = True
            return
        self.send_response(503 if kind == 2 else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        # Without a word, as a proxy does that is reloaded.
        self.close_connection = kind == 3

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served() -> Iterator[int]:
    _Handler.connections = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=socketserver.BaseServer.serve_forever, args=(server, 0.05))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _ask(port: int, kind: int) -> SteadyLoad:
    with SteadyLoad(port, f"/{kind}", clients=2) as load:
        deadline = time.monotonic() + 20
        while load.answered + load.failed < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
    return load


def test_connections_are_kept_and_every_request_is_counted_once() -> None:
    with _served() as port:
        kept = _ask(port, 0)
        assert (kept.failed, kept.reconnected, _Handler.connections) == (0, 0, 2)
        broken = _ask(port, 1)
        assert broken.answered == 0 and set(broken.failures) == {"IncompleteReadError"}
        refused = _ask(port, 2)
        assert refused.answered == 0 and set(refused.failures) == {"status 503"}
        closed = _ask(port, 3)
        assert closed.failed == 0 and closed.reconnected > 0
