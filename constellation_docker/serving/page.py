"""The two pages for people, and the policy that keeps them from loading or sending anything elsewhere."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "pages"


@cache
def read_page(name: str) -> bytes:
    """A page's bytes, read once."""
    return (_DIRECTORY / name).read_bytes()


@cache
def render_headers(name: str) -> tuple[tuple[str, str], ...]:
    """The page's headers: its one script and one style are allowed by their hashes, nothing else is."""
    page = read_page(name)
    script, style = (_hash_between(page, tag) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        ("content-security-policy", policy),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    )


def _hash_between(page: bytes, tag: bytes) -> str:
    content = page.split(b"<" + tag + b">", 1)[1].split(b"</" + tag + b">", 1)[0]
    return f"'sha256-{b64encode(sha256(content).digest()).decode()}'"
