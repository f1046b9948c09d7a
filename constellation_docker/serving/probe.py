"""The image's HEALTHCHECK: exit 0 when the server beside it is ready, else 1.

Runs every few seconds in every container, as a script, with `python -S -E`: it imports only what the
interpreter has already paid for.
"""

import os
import socket
import sys


def probe(port: int, timeout_seconds: float = 3.0) -> int:
    """Ask `GET /ready` on the loopback address. Returns 0 for 200, else 1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while len(answer) < 12:
                piece = connection.recv(1024)
                if not piece:
                    break
                answer += piece
    except OSError as problem:
        sys.stderr.write(f"no answer from 127.0.0.1:{port}: {problem}\n")
        return 1
    status = answer[9:12]
    if status != b"200":
        sys.stderr.write(f"not ready: status {status.decode('ascii', 'replace')}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(probe(int(os.environ.get("SERVING_PORT") or 8080)))
