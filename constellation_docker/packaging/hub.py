"""A model on a Hugging Face Hub: the commit that a revision means, and the files of that commit.

huggingface_hub does the talking, in a child process (see `hub_child`). A token goes to the Hub only, and
only one that the settings refer to; none that lies around on this machine is used.
"""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from constellation_docker.packaging.address import RepositoryAddress, check_revision
from constellation_docker.packaging.child_process import (
    ChildTimedOut,
    ChildWroteTooMuch,
    child_environment,
    run_child,
    tail,
    without_secrets,
)
from constellation_docker.packaging.source_errors import (
    RepositoryNotFound,
    RevisionNotFound,
    SourceDenied,
    SourceError,
    SourceTimedOut,
    SourceUnreachable,
    SourceUntrusted,
)
from constellation_docker.packaging.source_store import store_full
from constellation_docker.packaging.tree import Budget, check_name, too_large
from constellation_docker.settings import SourceSettings, resolve_secret

_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_PASSING = frozenset(
    {
        "TransportError",
        "ConnectionError",
        "TimeoutError",
        "LocalEntryNotFoundError",
        "IncompleteSnapshotError",
    }
)
"""Classes of errors, of huggingface_hub and of what it stands on, after which another try may succeed."""
_ALLOWANCE = 64 * 1024 * 1024


class HubRepository:
    """A model repository on a Hub.

    Args:
        address: Its id and the Hub's endpoint.
        scratch: An empty directory.
        settings: The token's reference and the limits.
        ca_bundle: Certificates to trust.
        deadline: `time.monotonic()` value at which everything ends.
        on_line: Gets a line for each thing that happens.
    """

    kind = "hub"

    def __init__(
        self,
        address: RepositoryAddress,
        scratch: Path,
        *,
        settings: SourceSettings,
        ca_bundle: Path | None,
        deadline: float,
        on_line: Callable[[str], None],
    ) -> None:
        self._address = address
        self._scratch = scratch
        self._settings = settings
        self._ca_bundle = ca_bundle
        self._deadline = deadline
        self._say = on_line
        self._token = resolve_secret(settings.hub_token) if settings.hub_token else None

    @staticmethod
    def pins(revision: str | None) -> bool:
        """Whether a revision names one commit for ever."""
        return revision is not None and _FULL_COMMIT.fullmatch(revision) is not None

    def commit_of(self, revision: str | None) -> str:
        """The commit that a branch, tag or commit means now; None: the main branch.

        Raises:
            SourceTooLarge: What it holds is over a limit; nothing was downloaded.
            SourceUnsafe: It holds a file under a name that must not be written.
        """
        check_revision(revision)
        answer = self._ask("resolve", revision=revision)
        commit = answer.get("commit")
        if not isinstance(commit, str) or not _FULL_COMMIT.fullmatch(commit):
            raise SourceError(
                f"{self._address.url} does not say which commit it is at.",
                remedy="Check that HF_ENDPOINT names a Hugging Face Hub.",
            )
        budget = Budget(self._settings)
        for file in answer["files"]:
            check_name(file["path"])
            budget.spend(file["path"], file["size_bytes"] or 0)
        return commit

    def unpack(self, commit: str, tree: Path) -> str:
        """Download the files of a commit into an empty directory."""
        self._say(f"Downloading {self._address.repo_id} at {commit[:12]} from {self._address.endpoint}.")
        self._ask("download", revision=commit, directory=str(tree))
        return commit

    def _ask(self, action: str, **request: Any) -> dict[str, Any]:
        home = self._scratch / "home"
        home.mkdir(exist_ok=True)
        variables = {
            "HF_HOME": str(home),
            "HF_ENDPOINT": str(self._address.endpoint),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            # The xet protocol fetches from further hosts, with certificates and proxies of its own.
            "HF_HUB_DISABLE_XET": "1",
        }
        request |= {
            "action": action,
            "endpoint": self._address.endpoint,
            "repo_id": self._address.repo_id,
            "token": self._token,
        }
        secrets = [self._token] if self._token else []
        try:
            finished = run_child(
                [sys.executable, "-I", str(Path(__file__).with_name("hub_child.py"))],
                environment=child_environment(home, variables, self._ca_bundle),
                directory=self._scratch,
                deadline=self._deadline,
                stdin=json.dumps(request).encode(),
                watched=self._scratch,
                max_bytes=self._settings.max_repository_bytes + _ALLOWANCE,
                secrets=secrets,
            )
        except ChildTimedOut:
            raise SourceTimedOut(
                f"Fetching {self._address.url} took longer than {self._settings.timeout_seconds:.0f} seconds.",
                remedy="Try again, or raise source.timeout_seconds.",
            ) from None
        except ChildWroteTooMuch:
            raise too_large(self._settings) from None
        try:
            answer: dict[str, Any] = json.loads(finished.stdout)
        except json.JSONDecodeError:
            raise SourceError(
                f"Fetching {self._address.url} ended with exit code {finished.exit_code}.",
                remedy="See the end of its output.",
                log_tail=tail(finished.stderr),
            ) from None
        if "error" in answer:
            raise self._explain(answer, without_secrets(str(answer["message"]), secrets))
        return answer

    def _explain(self, answer: dict[str, Any], message: str) -> SourceError:
        url = self._address.url
        kinds, status = set(answer["error"]), answer["status"]
        if answer.get("errno") in {errno.ENOSPC, errno.EDQUOT}:
            return store_full(self._scratch)
        if "GatedRepoError" in kinds or (status in {401, 403} and self._token):
            return SourceDenied(
                f"{url} may not be read with our token.",
                remedy="Let the account of source.hub_token accept the model's terms, or name another token there.",
            )
        if "RevisionNotFoundError" in kinds:
            return RevisionNotFound(
                f"{url} has no such branch, tag or commit.",
                remedy="Give another one, or none for the main branch.",
            )
        if "RepositoryNotFoundError" in kinds or status in {401, 403, 404}:
            return RepositoryNotFound(
                f"There is no model at {url}, or it may not be seen without a token.",
                remedy="Check the id; for a private model set source.hub_token to a reference to a token.",
            )
        if "certificate" in message.lower():
            return SourceUntrusted(
                f"The certificate of {self._address.host} is not trusted.",
                remedy="Name a bundle with its issuer in index.ca_bundle.",
            )
        return self._explain_breakdown(answer, message)

    def _explain_breakdown(self, answer: dict[str, Any], message: str) -> SourceError:
        url, status = self._address.url, answer["status"]
        is_passing = (
            bool(_PASSING & set(answer["error"])) if status is None else status == 429 or status >= 500
        )
        if is_passing:
            return SourceUnreachable(
                f"{url} does not answer, or broke off.",
                remedy="Check that the Hub can be reached from here, then try again.",
                log_tail=tail(message),
            )
        said = f"HTTP status {status}" if status else str(answer["error"][0])
        return SourceError(
            f"{url} could not be fetched ({said}).",
            remedy="See what huggingface_hub says.",
            log_tail=tail(message),
        )
