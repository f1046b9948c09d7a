"""The service that the rollout benchmark moves: as cheap as can be, and badly behaved where it is told so.

It runs in a container, with the standard library only. Variables: VERSION, READY_AFTER (seconds since the
start until `/ready` answers 200), BAD_AFTER (seconds since the first request until it does not any more), SLOW (seconds that an answer takes), CRASH.
"""

import asyncio
import os
import signal
import sys
import time
from typing import Any

STARTED = time.monotonic()
READY_AFTER = float(os.environ.get("READY_AFTER", "0"))
BAD_AFTER = float(os.environ.get("BAD_AFTER", "1e9"))
SLOW = float(os.environ.get("SLOW", "0.01"))
BODY = os.environ.get("VERSION", "1").encode()
IN_FLIGHT: set[Any] = set()
ASKED: list[float] = []


def answer(status: int, body: bytes = b"") -> bytes:
    """One response as bytes."""
    return b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            task = asyncio.current_task()
            IN_FLIGHT.add(task)
            lowered = head.lower()
            found = lowered.find(b"content-length: ")
            if found >= 0:
                await reader.readexactly(int(lowered[found + 16 :].split(b"\r", 1)[0]))
            if head.startswith(b"GET"):
                now = time.monotonic()
                is_bad = bool(ASKED) and now - ASKED[0] > BAD_AFTER
                is_ready = now - STARTED >= READY_AFTER and not is_bad
                writer.write(answer(200 if is_ready else 503))
            else:
                if not ASKED:
                    ASKED.append(time.monotonic())
                await asyncio.sleep(SLOW)
                writer.write(answer(200, BODY))
            await writer.drain()
            IN_FLIGHT.discard(task)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        IN_FLIGHT.discard(asyncio.current_task())
        writer.close()


async def main() -> None:
    """Serve until SIGTERM, then finish what is in flight."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await asyncio.start_server(serve, "0.0.0.0", 8080)
    await ended.wait()
    server.close()
    # As in our own images: what was sent before the signal may not have been read yet.
    await asyncio.sleep(0.1)
    while IN_FLIGHT:
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    if os.environ.get("CRASH"):
        sys.exit("cannot load the weights")
    asyncio.run(main())
