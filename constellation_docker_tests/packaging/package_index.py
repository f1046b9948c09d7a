"""A package index on loopback that wants a password, and packages for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX_LOGIN = "team:hunter2-a-long-password"


def make_wheel(name: str, version: str) -> tuple[str, bytes]:
    """A wheel with one module that knows its version."""
    packed = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in (
            (f"{name}.py", f"VERSION = {version!r}\n"),
            (f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
            (
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            ),
            (f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
        ):
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return f"{name}-{version}-py3-none-any.whl", packed.getvalue()


def make_broken_sdist(name: str, version: str) -> tuple[str, bytes]:
    """A source distribution that wants a compiler."""
    backend = (
        "import subprocess\n"
        "def build_wheel(*a, **k): subprocess.run(['gcc', '-c', 'x.c'], check=True)\n"
        "def get_requires_for_build_wheel(*a, **k): return []\n"
    )
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": backend,
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"{name}-{version}.tar.gz", packed.getvalue()


def locked(name: str, version: str, content: bytes) -> str:
    """A line of a lock."""
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"


@contextlib.contextmanager
def serve_index(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve these files as a simple index (PEP 503).

    Yields:
        Its address, `http://127.0.0.1:port/simple`.
    """
    wanted = "Basic " + base64.b64encode(INDEX_LOGIN.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.answer(401, b"", ("WWW-Authenticate", 'Basic realm="tests"'))
                return
            parts = self.path.strip("/").split("/")
            if parts[0] == "files" and parts[-1] in files:
                self.answer(200, files[parts[-1]])
            elif parts[0] == "simple" and len(parts) == 2:
                links = [
                    f'<a href="/files/{file}">{file}</a>' for file in files if file.startswith(f"{parts[1]}-")
                ]
                self.answer(200 if links else 404, "\n".join(links).encode(), ("Content-Type", "text/html"))
            else:
                self.answer(404, b"")

        def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()
