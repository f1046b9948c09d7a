"""HAProxy's runtime socket, through the engine: commands are run inside the balancer's container.

So a remote engine works the same, and the socket is open to nobody else. HAProxy executes a line's commands one after
another without doing anything else in between.
Protocol: https://docs.haproxy.org/2.6/management.html#9.3
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from constellation_docker.compose.balancer_config import RUNTIME_CLIENT
from constellation_docker.engine import Conflict, Engine, ExecResult, NotFound
from constellation_docker.rollout.errors import BalancerRefused, BalancerUnavailable

# HAProxy reads a command line into one buffer (tune.bufsize, 16384).
_LINE_BYTES = 12_000
_TIMEOUT_SECONDS = 30
# Every image with a shell can do this; `ps` is in few.
_LIST_PROCESSES = (
    'for folder in /proc/[0-9]*; do read -r name <"$folder/comm" && [ "$name" = haproxy ] && echo "$folder"; done'
    " 2>/dev/null"
)
_END_OF_ANSWER = "\x1e"
_CONVERSATION = (
    "while IFS= read -r line; do "
    f"""printf '%s\\n' "$line" | {{ {RUNTIME_CLIENT}; }} || exit 1; printf '\\036'; done"""
)
_ACKNOWLEDGED = re.compile(
    r"(?:.*\b(?:changed|no need to change)\b.*|The server's FQDN is already set.*|)", re.IGNORECASE
)


class RuntimeSocket:
    """Commands to the HAProxy in one container.

    Args:
        engine: The engine that runs it.
        container: The container's name.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self.container = container

    def ask(self, *commands: str) -> str:
        """Run commands that show something, and return their answers as one text.

        Raises:
            BalancerUnavailable: The container does not run, or HAProxy does not answer.
        """
        return self._send("; ".join(commands))

    def count_processes(self) -> int:
        """How many processes of HAProxy the container has.

        Raises:
            BalancerUnavailable: The container does not run.
        """
        return len(self._execute(_LIST_PROCESSES).stdout.split())

    def tell(self, commands: Sequence[str], *, then: Sequence[str] = ()) -> str:
        """Run commands that change something.

        Commands that fit into one line (about 200 of them) take effect together; no request is handled in between.

        Args:
            commands: At least one. They are silent, or acknowledge what they changed.
            then: Commands that show something afterwards.

        Returns:
            The answer to `then`.

        Raises:
            BalancerUnavailable: The container does not run, or HAProxy does not answer.
            BalancerRefused: HAProxy does not accept one of them.
        """
        *first, last = _lines(commands)
        for line in first:
            self._check(self._send(line), line)
        answers = self._converse(last, *(["; ".join(then)] if then else []))
        self._check(answers[0], last)
        return answers[1] if then else ""

    def replace_certificate(self, path: str, pem: str) -> None:
        """Replace a certificate that is in force; all at once, without a reload.

        Args:
            path: The file that it was read from.
            pem: Certificate, chain and key, without empty lines.

        Raises:
            BalancerUnavailable: The container does not run, or HAProxy does not answer.
            BalancerRefused: HAProxy does not accept it.
        """
        # An empty line ends the payload.
        said = self._send(f"set ssl cert {path} <<\n{pem.strip()}\n")
        if "Transaction" in said:
            said = self._send(f"commit ssl cert {path}")
            if "Success" in said:
                return
            self._send(f"abort ssl cert {path}")
        raise BalancerRefused(
            f"The balancer {self.container} refused a certificate: {' '.join(said.split()).rstrip('.')[:300]}.",
            remedy="Check that the PEM holds the certificate, its chain and its key; the former one stays in force.",
            balancer=self.container,
        )

    def _check(self, answers: str, line: str) -> None:
        complaints = [
            answer.strip() for answer in answers.splitlines() if not _ACKNOWLEDGED.fullmatch(answer.strip())
        ]
        if complaints:
            raise BalancerRefused(
                f"The balancer {self.container} refused a change: {' '.join(complaints).rstrip('.')[:300]}.",
                remedy="Launch the deployment again; if it stays, restart the balancer's container.",
                balancer=self.container,
                commands=line[:2000],
            )

    def _send(self, line: str) -> str:
        result = self._execute(RUNTIME_CLIENT, f"{line}\n".encode())
        if result.exit_code != 0:
            raise self._unavailable(result.stderr.decode(errors="replace").strip()[-300:] or "no answer")
        return result.stdout.decode(errors="replace")

    def _converse(self, *lines: str) -> list[str]:
        """Send lines one after another; a process in the container costs more than what it asks."""
        result = self._execute(_CONVERSATION, "".join(f"{line}\n" for line in lines).encode())
        *answers, rest = result.stdout.decode(errors="replace").split(_END_OF_ANSWER)
        if result.exit_code != 0 or len(answers) != len(lines):
            raise self._unavailable(
                (result.stderr.decode(errors="replace") or rest).strip()[-300:] or "no answer"
            )
        return answers

    def _execute(self, script: str, stdin: bytes | None = None) -> ExecResult:
        try:
            return self._engine.execute(
                self.container, ["sh", "-c", script], stdin=stdin, timeout_seconds=_TIMEOUT_SECONDS
            )
        except (NotFound, Conflict) as error:
            raise self._unavailable("its container does not run") from error

    def _unavailable(self, reason: str) -> BalancerUnavailable:
        return BalancerUnavailable(
            f"The balancer {self.container} does not answer: {reason}.",
            remedy="Launch the deployment again: it starts the balancer.",
            balancer=self.container,
        )


def _lines(commands: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for command in commands:
        if lines and len(lines[-1]) + len(command) + 2 <= _LINE_BYTES:
            lines[-1] += f"; {command}"
        else:
            lines.append(command)
    return lines
