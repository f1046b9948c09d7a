"""What a repository's address means, and which are refused."""

from __future__ import annotations

import pytest

from constellation_docker.packaging.address import check_revision, resolve_address
from constellation_docker.packaging.source_errors import SourceRefused
from constellation_docker.settings import SourceSettings

EVERYTHING = SourceSettings(allowed_schemes=("https", "http", "ssh", "git", "file", "hf"))


@pytest.mark.parametrize(
    ("url", "kind", "scheme", "host"),
    [
        ("https://git.example/team/model.git", "git", "https", "git.example"),
        ("HTTPS://Git.Example./team/model", "git", "https", "git.example"),
        ("http://git.example:8080/m", "git", "http", "git.example"),
        ("ssh://git@git.example:2222/team/model", "git", "ssh", "git.example"),
        ("git@git.example:team/model.git", "git", "ssh", "git.example"),
        ("git://git.example/m", "git", "git", "git.example"),
        ("https://[::1]:8443/m", "git", "https", "::1"),
        ("file:///srv/models/a", "path", "file", None),
        ("/srv/models/a", "path", "file", None),
        ("hf:org/name", "hub", "hf", "huggingface.co"),
        ("hf://gpt2", "hub", "hf", "huggingface.co"),
        ("org/name", "hub", "hf", "huggingface.co"),
        ("https://huggingface.co/org/name", "hub", "hf", "huggingface.co"),
        ("https://huggingface.co/org/name/tree/main", "hub", "hf", "huggingface.co"),
        ("https://huggingface.co/datasets/org/name", "git", "https", "huggingface.co"),
        ("https://huggingface.co/org/name.git", "git", "https", "huggingface.co"),
    ],
)
def test_an_address_is_understood(url: str, kind: str, scheme: str, host: str | None) -> None:
    address = resolve_address(url, EVERYTHING)
    assert (address.kind, address.scheme, address.host) == (kind, scheme, host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ext::sh -c id",
        "ext::sh",
        "fd::17",
        "ftp://host/x",
        "--upload-pack=id",
        "-oProxyCommand=id",
        "ssh://-oProxyCommand=id/x",
        "-oProxyCommand=id:path",
        "git@-oProxyCommand=id:path",
        "git@host:-path",
        "https://host/a\nb",
        "https://host/a%0ab",
        "https://host/a b",
        "https://host",
        "https://host/x?token=1",
        "https://host/x#frag",
        "https://ho_st$/x",
        "https:///x",
        "https://host:99999/x",
        "file://other-host/x",
        "../relative",
        "./relative",
        "hf:org/name/more",
        "hf:../../etc",
        "just-a-word",
        "transport::https://host/x",
    ],
)
def test_an_address_that_could_mean_something_else_is_refused(url: str) -> None:
    with pytest.raises(SourceRefused):
        resolve_address(url, EVERYTHING)


@pytest.mark.parametrize(
    "url", ["https://user:pa55word@host/x", "https://pa55word@host/x", "ssh://git:pa55word@host/x"]
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SourceRefused, match="credentials") as caught:
        resolve_address(url, EVERYTHING)
    assert "pa55word" not in str(caught.value) + repr(caught.value.details)


def test_hosts_and_schemes_are_allowed_by_the_settings() -> None:
    settings = SourceSettings(allowed_hosts=("git.example", "*.corp.example", "10.0.0.1:8443"))
    for url in (
        "https://git.example/x",
        "https://a.b.corp.example/x",
        "https://10.0.0.1:8443/x",
        "git@git.example:x",
    ):
        resolve_address(url, settings)
    for url in (
        "https://evil.example/x",
        "https://corp.example.evil/x",
        "https://corp.example/x",
        "https://10.0.0.1/x",
        "https://git.example.evil/x",
        "git@evil:x",
        "https://127.0.0.1/x",
        "hf:org/name",
    ):
        with pytest.raises(SourceRefused, match="not allowed"):
            resolve_address(url, settings)
    for url in ("http://git.example/x", "file:///srv/x", "git://git.example/x"):
        with pytest.raises(SourceRefused, match="allowed_schemes"):
            resolve_address(url, settings)


def test_the_page_of_a_model_is_plain_git_where_the_hub_is_not_allowed() -> None:
    settings = SourceSettings(allowed_schemes=("https",))
    assert resolve_address("https://huggingface.co/org/name", settings).kind == "git"


@pytest.mark.parametrize("revision", ["main", "feature/x", "v1.0", "refs/pr/1", "a" * 40, "hotfix-1"])
def test_a_plain_revision_is_taken(revision: str) -> None:
    check_revision(revision)


@pytest.mark.parametrize(
    "revision",
    ["", "--upload-pack=id", "-x", "a b", "a..b", "a~1", "a^", "a:b", "*", "a?", "a[", "a\\b", "a\n", "@{0}", "x" * 256, "/a", "a/", "a//b", "a.lock"],
)  # fmt: skip
def test_a_revision_that_git_would_read_as_something_else_is_refused(revision: str) -> None:
    with pytest.raises(SourceRefused):
        check_revision(revision)
