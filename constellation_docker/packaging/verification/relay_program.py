"""Speaks to a container that has no network, from a container that shares its network namespace.

This file's text is given to `python -c` in the base image, so it uses nothing but the standard library.

    exchange <port> <timeout>          standard input to the port, the answer to standard output
    wait <port> <path> <timeout>       until GET <path> says 2xx; one line of JSON
    hold <port> <path> <timeout> <body> <count> <type>
                                       requests in flight over a SIGTERM (see `hold`); lines of JSON
"""

import base64
import contextlib
import json
import signal
import socket
import sys
import time

PIECE = 65536
ACKNOWLEDGED_SECONDS = 10.0


def connect(port: int, timeout: float) -> socket.socket:
    """A connection to the container's own port."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


def read_answer(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(PIECE):
            pieces.append(piece)
    return b"".join(pieces)


def exchange(port: str, timeout: str) -> None:
    """Pass a request on, and its answer back. The request must ask for `Connection: close`."""
    request = sys.stdin.buffer.read()
    try:
        with connect(int(port), float(timeout)) as connection:
            connection.sendall(request)
            sys.stdout.buffer.write(read_answer(connection))
    except OSError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}")
        sys.exit(3)


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer; 0 where it is none."""
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[0].startswith(b"HTTP/") and parts[1].isdigit() else 0


def wait(port: str, path: str, timeout: str) -> None:
    """Ask again and again until the answer is 2xx."""
    deadline = time.monotonic() + float(timeout)
    last = ""
    while True:
        try:
            with connect(int(port), 5.0) as connection:
                connection.sendall(
                    f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                )
                answer = read_answer(connection)
            status = status_of(answer)
            last = answer.partition(b"\r\n\r\n")[2][:500].decode("utf-8", "replace")
        except OSError as error:
            status, last = 0, f"{type(error).__name__}: {error}"
        if 200 <= status < 300 or time.monotonic() >= deadline:
            sys.stdout.write(json.dumps({"status": status, "said": last}))
            return
        time.sleep(0.05)


def hold(port: str, path: str, timeout: str, encoded: str, connection_count: str, kind: str) -> None:
    """Hold requests in flight while the server is told to stop.

    This runs as a container's first process, so the body comes base64-encoded, as an argument. Each connection
    sends its headers with `Expect: 100-continue`; the server's `100 Continue` proves that it has taken the request
    on (RFC 9110, 10.1.1). Half of the body follows, then a line of JSON. On SIGUSR1, sent after the SIGTERM, the
    other half follows and the answers are read.
    """
    body = base64.b64decode(encoded)
    released = []
    signal.signal(signal.SIGUSR1, lambda *_: released.append(True))
    half = len(body) // 2
    connections, acknowledged = [], []
    for _ in range(int(connection_count)):
        connection = connect(int(port), float(timeout))
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\n"
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        connections.append(connection)
    early = []
    for connection in connections:
        connection.settimeout(min(float(timeout), ACKNOWLEDGED_SECONDS))
        first = b""
        with contextlib.suppress(OSError):
            first = connection.recv(PIECE)
        acknowledged.append(status_of(first) == 100)
        early.append(first if status_of(first) != 100 else first.partition(b"\r\n\r\n")[2])
        connection.settimeout(float(timeout))
        with contextlib.suppress(OSError):
            connection.sendall(body[:half])
    sys.stdout.write(json.dumps({"in_flight": len(connections), "proven": sum(acknowledged)}) + "\n")
    sys.stdout.flush()
    deadline = time.monotonic() + float(timeout)
    while not released and time.monotonic() < deadline:
        time.sleep(0.01)
    answers = []
    for connection, first, is_proven in zip(connections, early, acknowledged, strict=True):
        try:
            connection.sendall(body[half:])
            answer = first + read_answer(connection)
            said = answer.partition(b"\r\n\r\n")[2][:500].decode("utf-8", "replace")
            answers.append({"status": status_of(answer), "said": said, "proven": is_proven})
        except OSError as error:
            told = f"{type(error).__name__}: {error}"
            answers.append({"status": 0, "said": told, "proven": is_proven})
    sys.stdout.write(json.dumps({"answers": answers}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    arguments = sys.argv[2:]
    if sys.argv[1] == "exchange":
        exchange(*arguments)
    elif sys.argv[1] == "wait":
        wait(*arguments)
    else:
        hold(*arguments)
