"""Containers, in the engine's own JSON: what is created, found and read is what the Engine API documents."""

from __future__ import annotations

import contextlib
import copy
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from docker.utils import version_lt

from constellation_docker.engine.client import EngineClient
from constellation_docker.engine.connection import Connection
from constellation_docker.engine.errors import EngineError, NotFound
from constellation_docker.engine.images import label_filter
from constellation_docker.engine.stream import never, read_chunks, read_frames

# From this version on a container can join several networks as it is created.
_SEVERAL_NETWORKS_API = "1.44"


class Containers(Connection):
    """Containers on the engine."""

    def create_container(self, name: str, config: Mapping[str, Any], *, platform: str | None = None) -> str:
        """Create a container.

        Args:
            name: Its name.
            config: The body of `POST /containers/create`, with `HostConfig` and `NetworkingConfig`. With several
                networks it has joined all of them when this returns, on old engines too.
            platform: As `linux/arm64`; None: the image's.

        Returns:
            Its id.

        Raises:
            ImageNotFound: The engine has not got the image.
            Conflict: The name is taken.
        """
        body = copy.deepcopy(dict(config))
        endpoints: dict[str, Any] = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        later: dict[str, Any] = {}
        if len(endpoints) > 1 and version_lt(self.version.api, _SEVERAL_NETWORKS_API):
            mode = (body.get("HostConfig") or {}).get("NetworkMode")
            first = mode if mode in endpoints else next(iter(endpoints))
            later = {network: endpoint for network, endpoint in endpoints.items() if network != first}
            body["NetworkingConfig"] = {"EndpointsConfig": {first: endpoints[first]}}
        with self._calling(f"creating container {name}") as client:
            made = client.ask(
                "POST", "/containers/create", params={"name": name, "platform": platform}, body=body
            )
            container_id = str(made["Id"])
        try:
            for network, endpoint in later.items():
                with self._calling(f"connecting container {name} to network {network}") as client:
                    client.call(
                        "POST",
                        "/networks/{0}/connect",
                        network,
                        body={"Container": container_id, "EndpointConfig": endpoint},
                    )
        except EngineError:
            self.remove(container_id, force=True)
            raise
        return container_id

    def start(self, container: str) -> None:
        """Start a container; nothing happens where it runs already."""
        with self._calling(f"starting container {container}") as client:
            client.start(container)

    def stop(self, container: str, *, grace_seconds: float) -> None:
        """Stop a container: SIGTERM (or its own stop signal), after `grace_seconds` SIGKILL."""
        with self._calling(f"stopping container {container}") as client:
            # The engine answers when the container has ended, so the call must outlast the grace.
            client.call(
                "POST",
                "/containers/{0}/stop",
                container,
                params={"t": round(grace_seconds)},
                timeout_seconds=grace_seconds + self.timeout_seconds,
            )

    def restart(self, container: str, *, grace_seconds: float) -> None:
        """Stop a container as `stop` does, and start it."""
        with self._calling(f"restarting container {container}") as client:
            client.call(
                "POST",
                "/containers/{0}/restart",
                container,
                params={"t": round(grace_seconds)},
                timeout_seconds=grace_seconds + self.timeout_seconds,
            )

    def kill(self, container: str, signal: str = "SIGKILL") -> None:
        """Send a signal to a container's first process.

        Raises:
            Conflict: It is not running.
        """
        with self._calling(f"sending {signal} to container {container}") as client:
            client.kill(container, signal)

    def remove(self, container: str, *, force: bool = False, volumes: bool = True) -> bool:
        """Remove a container.

        Args:
            container: Its id or name.
            force: Kill it first where it runs.
            volumes: Remove its anonymous volumes too.

        Returns:
            False where there was none.
        """
        try:
            with self._calling(f"removing container {container}") as client:
                client.remove_container(container, v=volumes, force=force)
        except NotFound:
            return False
        return True

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with self._calling(f"renaming container {container} to {name}") as client:
            client.rename(container, name)

    def update(self, container: str, changes: Mapping[str, Any]) -> None:
        """Change a container's limits or restart policy in place (body of `POST /containers/{id}/update`)."""
        with self._calling(f"updating container {container}") as client:
            client.call("POST", "/containers/{0}/update", container, body=changes)

    def container(self, container: str) -> dict[str, Any] | None:
        """What the engine knows of a container (`GET /containers/{id}/json`); None where it has none."""
        try:
            with self._calling(f"inspecting container {container}") as client:
                return dict(client.inspect_container(container))
        except NotFound:
            return None

    def list_containers(
        self, labels: Mapping[str, str | None] | None = None, *, all: bool = True
    ) -> list[dict[str, Any]]:
        """The containers with these labels (a value of None: any).

        Args:
            labels: Labels that all must match; None: no condition.
            all: With those that do not run.

        Returns:
            Rows of `GET /containers/json`.
        """
        with self._calling("listing containers") as client:
            return list(client.containers(all=all, filters={"label": label_filter(labels or {})}))

    def wait(
        self,
        container: str,
        *,
        timeout_seconds: float | None = None,
        is_cancelled: Callable[[], bool] = never,
    ) -> int:
        """Wait until a container has ended.

        Returns:
            Its exit code.

        Raises:
            DeadlineExceeded: It runs longer than `timeout_seconds`.
        """
        for answer in self._streaming(
            f"waiting for container {container} to end",
            lambda client, _: client.call("POST", "/containers/{0}/wait", container, is_stream=True),
            lambda response: iter([response.json()]),
            timeout_seconds=timeout_seconds,
            is_cancelled=is_cancelled,
        ):
            return int(answer["StatusCode"])
        raise EngineError(f"The Docker engine at {self.url} did not say how container {container} ended.")

    def logs(
        self,
        container: str,
        *,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
    ) -> str:
        """What a container has written so far, both streams in the order in which they came.

        Args:
            container: Its id or name.
            tail: Only the last so many lines; None: all.
            since: Only what was written after this time, in seconds since 1970.
            timestamps: Begin each line with its RFC 3339 time.
        """
        lines = self._log_lines(container, tail, since, timestamps, follow=False, is_cancelled=never)
        return "".join(f"{line}\n" for line in lines)

    def follow_logs(
        self,
        container: str,
        *,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
        is_cancelled: Callable[[], bool] = never,
    ) -> Iterator[str]:
        """Yield a container's lines as they come, until it ends. Arguments as in `logs`.

        Raises:
            CallCancelled: `is_cancelled` became true.
        """
        yield from self._log_lines(container, tail, since, timestamps, follow=True, is_cancelled=is_cancelled)

    def _log_lines(
        self,
        container: str,
        tail: int | None,
        since: float | None,
        timestamps: bool,
        *,
        follow: bool,
        is_cancelled: Callable[[], bool],
    ) -> Iterator[str]:
        with self._calling(f"inspecting container {container}") as client:
            has_terminal = bool(client.inspect_container(container)["Config"].get("Tty"))
        parameters = {
            "stdout": "1",
            "stderr": "1",
            "follow": "1" if follow else "0",
            "timestamps": "1" if timestamps else "0",
            "tail": "all" if tail is None else str(tail),
            "since": None if since is None else f"{since:.9f}",
        }

        def send(client: EngineClient, _: Callable[[], bool]) -> requests.Response:
            return client.call("GET", "/containers/{0}/logs", container, params=parameters, is_stream=True)

        def parse(response: requests.Response) -> Iterator[tuple[int, bytes]]:
            if has_terminal:
                return ((1, chunk) for chunk in read_chunks(response))
            return read_frames(response)

        rest = {1: b"", 2: b""}
        for stream, data in self._streaming(
            f"reading the log of container {container}", send, parse, is_cancelled=is_cancelled
        ):
            *lines, rest[stream] = (rest.get(stream, b"") + data).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace").rstrip("\r")
        for remainder in rest.values():
            if remainder:
                yield remainder.decode("utf-8", "replace")

    def put_archive(self, container: str, path: str, tar: bytes) -> None:
        """Unpack a tar archive into a container's directory `path`."""
        with self._calling(f"copying files into {path} of container {container}") as client:
            client.put_archive(container, path, tar)

    def put_file(self, container: str, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write one file into a container; its directory must exist."""
        folder, _, name = path.rpartition("/")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        self.put_archive(container, folder or "/", packed.getvalue())

    def get_archive(self, container: str, path: str) -> bytes:
        """A tar archive of a file or directory in a container.

        Raises:
            NotFound: There is nothing at `path`.
        """
        with self._calling(f"copying {path} out of container {container}") as client:
            pieces, _ = client.get_archive(container, path)
            return b"".join(pieces)

    def stats(self, container: str, *, one_shot: bool = True) -> dict[str, Any]:
        """A container's resource use (`GET /containers/{id}/stats`).

        Args:
            container: Its id or name.
            one_shot: Answer at once. False waits a second or two, so that `precpu_stats` is filled in and the CPU share can
                be told.
        """
        with self._calling(f"reading the resource use of container {container}") as client:
            parameters = {"stream": "0"}
            if one_shot and not version_lt(self.version.api, "1.41"):
                parameters["one-shot"] = "1"
            return dict(client.ask("GET", "/containers/{0}/stats", container, params=parameters))

    @contextlib.contextmanager
    def temporary_container(self, name: str, config: Mapping[str, Any]) -> Iterator[str]:
        """A container, created but not started, that is removed again whatever happens."""
        container_id = self.create_container(name, config)
        try:
            yield container_id
        finally:
            self.remove(container_id, force=True)
