"""A model server as small as can be, for rollouts in tests. Its behaviour is set by environment variables.

READY_AFTER counts from its start, BAD_AFTER from the first request that it was given. After SIGUSR1 it is ready as before
and answers every request with 500; SIGUSR2 makes it crash.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED = time.monotonic()
SLOW = float(os.environ.get("SLOW", "0.01"))
READY_AFTER = float(os.environ.get("READY_AFTER", "0"))
BAD_AFTER = float(os.environ.get("BAD_AFTER", "1e9"))


ASKED = []
FAILING = []


def is_ready():
    now = time.monotonic()
    return now - STARTED >= READY_AFTER and not (ASKED and now - ASKED[0] > BAD_AFTER)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if is_ready() else 503)

    def do_POST(self):
        if not ASKED:
            ASKED.append(time.monotonic())
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        time.sleep(float(self.headers.get("X-Slow", SLOW)))
        self.answer(500 if FAILING else int(self.headers.get("X-Status", "200")), len(body))

    def answer(self, status, size=0):
        text = json.dumps(
            {
                "version": os.environ.get("VERSION", "1"),
                "path": self.path,
                "size": size,
                "secret": len(os.environ.get("TOKEN", "")),
            }
        ).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # the balancer hangs up as soon as it has read the status of a check


if os.environ.get("CRASH"):
    print("cannot load the weights; token is", os.environ.get("TOKEN", ""), file=sys.stderr, flush=True)
    sys.exit(3)
server = Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
signal.signal(signal.SIGUSR2, lambda *_: os._exit(4))
signal.signal(signal.SIGUSR1, lambda *_: FAILING.append(True))
print("listening, version", os.environ.get("VERSION", "1"), flush=True)
server.serve_forever()
server.server_close()
