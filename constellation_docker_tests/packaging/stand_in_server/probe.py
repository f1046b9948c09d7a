"""The health check: whether `/ready` says 200."""

import os
import socket
import sys

with socket.create_connection(("127.0.0.1", int(os.environ["SERVING_PORT"])), timeout=4) as connection:
    connection.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
    sys.exit(b" 200 " not in connection.recv(64))
