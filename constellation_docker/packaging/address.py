"""Where a repository lies: what a card's `repo_url` means, and whether the settings allow it.

Pure: nothing is looked up, resolved or opened here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.source_errors import SourceRefused
from constellation_docker.settings import SourceSettings

DEFAULT_HUB = "https://huggingface.co"
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)
_SCP = re.compile(
    r"(?:(?P<user>[\w.-]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>(?!//)[^\s:]+)", re.ASCII
)
_USER = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(
    r"(?!.*(\.\.|//|@\{|\.lock(/|$)))[^-/\s\x00-\x20\x7f~^:?*\[\\][^\s\x00-\x20\x7f~^:?*\[\\]*(?<![/.])"
)
_DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}


class RepositoryAddress(BaseModel):
    """A checked address.

    Attributes:
        kind: `git`, `hub` (the Hugging Face Hub) or `path` (a directory of this machine, git or not).
        url: The address as people read it. It never holds credentials.
        scheme: How it is reached.
        host: The server; None for a path.
        port: Its port, where the address gives one.
        path: The directory, for `path`.
        repo_id: `org/name`, for `hub`.
        endpoint: The Hub's address, for `hub`.
        revision: A revision that the address itself names (`…/tree/<revision>` on the Hub).
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["git", "hub", "path"]
    url: str
    scheme: str
    host: str | None = None
    port: int | None = None
    path: str | None = None
    repo_id: str | None = None
    endpoint: str | None = None
    revision: str | None = None


def resolve_address(
    repo_url: str, settings: SourceSettings, *, hub_endpoint: str = DEFAULT_HUB
) -> RepositoryAddress:
    """What an address means, if the settings allow it.

    Args:
        repo_url: `https://…`, `http://…`, `ssh://…`, `git@host:path`, `git://…`, `file:///…`, or a Hub id as
            `hf:org/name`, `hf://org/name`, `org/name` or the address of its page.
        settings: The allowed schemes and hosts.
        hub_endpoint: The Hub, as `HF_ENDPOINT` names it.

    Raises:
        SourceRefused: The address is malformed, holds credentials, or is not allowed.
    """
    text = repo_url.strip()
    spaces = "" if text.startswith(("/", "file:")) else " "
    if not text or any(ord(c) < 32 or ord(c) == 127 or c in spaces for c in text + unquote(text)):
        raise _refused("is empty or holds white space or control characters", text)
    address = _hub_address(text, settings, hub_endpoint) or _path_address(text) or _scp_address(text)
    address = address or _url_address(text)
    if address.scheme not in settings.allowed_schemes:
        raise SourceRefused(
            f"Repositories over {address.scheme} are not allowed ({address.url}).",
            remedy=f"Use one of {', '.join(settings.allowed_schemes)}, or add {address.scheme} to source.allowed_schemes.",
            scheme=address.scheme,
        )
    if address.host is not None:
        check_host(address.host, address.port, settings)
    return address


def check_host(host: str, port: int | None, settings: SourceSettings) -> None:
    """Make sure that repositories may come from a host.

    Raises:
        SourceRefused: `source.allowed_hosts` is set and does not hold it.
    """
    if settings.allowed_hosts and not any(_matches(rule, host, port) for rule in settings.allowed_hosts):
        shown = host if port is None else f"{host}:{port}"
        raise SourceRefused(
            f"Repositories from {shown} are not allowed.",
            remedy=f"Use one of {', '.join(settings.allowed_hosts)}, or add {host} to source.allowed_hosts.",
            host=host,
        )


def check_revision(revision: str | None) -> None:
    """Make sure that a branch, tag or commit is a name that git knows how to take.

    Raises:
        SourceRefused: It is not; nothing was sent anywhere.
    """
    if revision is not None and (len(revision) > 255 or not _REVISION.fullmatch(revision)):
        raise SourceRefused(
            f"{revision!r:.100} cannot be the name of a branch, a tag or a commit.",
            remedy="Give a plain branch, tag or commit, or none for the default branch.",
        )


def location(address: RepositoryAddress) -> str:
    """Host and port, as keys of `source.git_credentials` name them."""
    host = address.host or ""
    default = _DEFAULT_PORTS.get(address.scheme)
    return host if address.port in {None, default} else f"{host}:{address.port}"


def _matches(rule: str, host: str, port: int | None) -> bool:
    rule = rule.lower().rstrip(".")
    if rule.startswith("*."):
        return host.endswith(rule[1:])
    return rule == host or (port is not None and rule == f"{host}:{port}")


def _refused(what: str, text: str) -> SourceRefused:
    shown = re.sub(r"(?<=//)[^/@]*@", "***@", text)[:200]
    return SourceRefused(
        f"The repository address {shown!r} {what}.",
        remedy="Give https://host/path, ssh://git@host/path, git@host:path or a Hugging Face id such as hf:org/name.",
    )


def _hub_address(text: str, settings: SourceSettings, hub_endpoint: str) -> RepositoryAddress | None:
    endpoint = hub_endpoint.rstrip("/")
    revision = None
    if text.startswith("hf:"):
        repo_id = text.removeprefix("hf:").removeprefix("//")
        repo_id, _, revision = repo_id.partition("@")
    elif "://" in text:
        repo_id, revision = _hub_page(text, endpoint, settings)
        if not repo_id:
            return None
    elif "/" in text and ":" not in text and not text.startswith(("/", ".")):
        repo_id = text
    else:
        return None
    if (
        not _HUB_ID.fullmatch(repo_id)
        or ".." in repo_id
        or "--" in repo_id
        or repo_id.endswith((".git", "-", "."))
    ):
        raise _refused("is not a Hugging Face id (org/name)", text)
    parts = urlsplit(endpoint)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise SourceRefused(
            f"HF_ENDPOINT is {endpoint!r:.100}, which is not the address of a Hub.",
            remedy="Set it to https://host, or unset it.",
        )
    return RepositoryAddress(
        kind="hub",
        url=f"{endpoint}/{repo_id}",
        scheme="hf",
        host=parts.hostname.lower(),
        port=_port(endpoint),
        repo_id=repo_id,
        endpoint=endpoint,
        revision=revision or None,
    )


def _hub_page(text: str, endpoint: str, settings: SourceSettings) -> tuple[str, str]:
    """The id and revision of a model's page on the Hub; empty where the address is no such page."""
    if "hf" not in settings.allowed_schemes:
        return "", ""
    parts = urlsplit(text)
    is_hub = (parts.scheme == "https" and parts.netloc.lower() in _HUB_HOSTS) or text.startswith(
        endpoint + "/"
    )
    base = urlsplit(endpoint).path if text.startswith(endpoint + "/") else ""
    pieces = [unquote(piece) for piece in parts.path.removeprefix(base).split("/") if piece]
    if not is_hub or parts.query or parts.fragment or not pieces or pieces[0] in {"datasets", "spaces"}:
        return "", ""
    revision = ""
    if len(pieces) >= 4 and pieces[2] == "tree":
        revision = "/".join(pieces[3:])
        pieces = pieces[:2]
    if len(pieces) > 2 or pieces[-1].endswith(".git"):
        return "", ""
    return "/".join(pieces), revision


def _path_address(text: str) -> RepositoryAddress | None:
    if text.startswith("/"):
        path = text
    elif text.lower().startswith("file:"):
        parts = urlsplit(text)
        if (
            parts.netloc not in {"", "localhost"}
            or parts.query
            or parts.fragment
            or not parts.path.startswith("/")
        ):
            raise _refused("is not a path of this machine (file:///absolute/path)", text)
        path = unquote(parts.path)
    else:
        return None
    return RepositoryAddress(kind="path", url=f"file://{path}", scheme="file", path=path)


def _scp_address(text: str) -> RepositoryAddress | None:
    match = _SCP.fullmatch(text)
    if not match or "://" in text or match["path"].startswith("-"):
        return None
    host = match["host"].lower()
    return RepositoryAddress(kind="git", url=text, scheme="ssh", host=host)


def _url_address(text: str) -> RepositoryAddress:
    parts = urlsplit(text)
    if parts.scheme not in {"https", "http", "ssh", "git"} or "::" in text.split("/", 1)[0]:
        raise _refused("is not an address that can be fetched", text)
    host = (parts.hostname or "").lower().rstrip(".")
    if not (_HOST.fullmatch(host) or _is_ipv6(host)) or len(host) > 253:
        raise _refused("has no proper host name", text)
    if parts.query or parts.fragment or len(parts.path.strip("/")) == 0:
        raise _refused("must end with the path of the repository", text)
    if parts.password is not None or (parts.username and parts.scheme != "ssh"):
        raise SourceRefused(
            f"The repository address {parts.scheme}://***@{host}{parts.path} holds credentials.",
            remedy="Take them out of the address and give them by reference in source.git_credentials.",
        )
    if parts.username and not _USER.fullmatch(parts.username):
        raise _refused("has no proper user name", text)
    return RepositoryAddress(kind="git", url=text, scheme=parts.scheme, host=host, port=_port(text))


def _port(text: str) -> int | None:
    try:
        return urlsplit(text).port
    except ValueError:
        raise _refused("has no proper port", text) from None


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
