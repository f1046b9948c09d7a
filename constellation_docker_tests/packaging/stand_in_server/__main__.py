"""Serves text-classification of nothing in particular, well or badly."""

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEHAVIOUR = os.environ.get("BEHAVIOUR", "good")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(503 if BEHAVIOUR == "never ready" else 200, {"status": BEHAVIOUR})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            asked = json.loads(body)
            if not isinstance(asked["inputs"], str):
                raise ValueError("inputs is not a text")
        except (ValueError, KeyError, TypeError) as error:
            self.reply(200 if BEHAVIOUR == "accepts anything" else 400, {"error": str(error)})
            return
        if BEHAVIOUR == "loses requests" and self.headers.get("Expect"):
            # However late SIGTERM comes to the main thread, it comes before the answer.
            threading.Event().wait()
        self.reply(200, answer_to(asked["inputs"], dict(self.headers)))

    def reply(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def answer_to(text: str, headers: dict[str, str]) -> Any:
    if BEHAVIOUR == "rubbish":
        return [[{"label": 7, "score": "high"}]]
    if BEHAVIOUR == "echo":
        return [[{"label": json.dumps(headers), "score": 1.0}]]
    if BEHAVIOUR == "explore":
        return [[{"label": "; ".join(explore()) or "alone", "score": 1.0}]]
    return [[{"label": "POSITIVE" if "good" in text else "NEGATIVE", "score": 0.9}]]


def explore() -> list[str]:
    """Ways out of here."""
    found = [name for _, name in socket.if_nameindex() if name != "lo" and is_up(name)]
    for address in (
        ("172.17.0.1", 22),
        ("1.1.1.1", 53),
        ("169.254.169.254", 80),
        ("host.docker.internal", 80),
    ):
        try:
            socket.create_connection(address, timeout=1).close()
            found.append(str(address))
        except ConnectionRefusedError:
            found.append(f"{address} is there")
        except OSError:
            continue
    return found


def is_up(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/operstate").read_text().strip() == "up"


def misbehave_at_start() -> None:
    if BEHAVIOUR == "crash":
        raise RuntimeError("the weights are not where they should be")
    if BEHAVIOUR == "network":
        socket.create_connection(("huggingface.co", 443))
    if BEHAVIOUR == "writes":
        Path("/model/cache").write_text("x")
    if BEHAVIOUR == "memory":
        held = []
        while True:
            held.append(bytearray(os.urandom(1024 * 1024)) * 32)


def main() -> None:
    misbehave_at_start()
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["SERVING_PORT"])), Handler)
    server.daemon_threads = False

    def stop(*_: Any) -> None:
        if BEHAVIOUR == "loses requests":
            os._exit(0)
        if BEHAVIOUR != "ignores SIGTERM":
            threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print("listening", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    if BEHAVIOUR == "ends badly":
        time.sleep(0)
        sys.exit(3)


if __name__ == "__main__":
    main()
