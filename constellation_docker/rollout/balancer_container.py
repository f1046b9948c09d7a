"""The container that the balancer runs in: making, starting, replacing it."""

from __future__ import annotations

from constellation_docker.compose import ComposeFile
from constellation_docker.engine import Conflict, Engine
from constellation_docker.rollout.balancer import BalancerState
from constellation_docker.rollout.errors import StepFailed
from constellation_docker.rollout.generation import render_container
from constellation_docker.rollout.haproxy import HaproxyBalancer
from constellation_docker.rollout.haproxy_config import plan_layout
from constellation_docker.rollout.observed import balancer_name
from constellation_docker.rollout.pace import Pace

START_SECONDS = 30.0
_STOP_GRACE_SECONDS = 5


class BalancerContainer:
    """The balancer's container of one environment.

    Args:
        engine: The engine that it runs on.
        compose_file: The environment's Compose file.
        compose_path: Where that lies.
        certificate: What it shows: certificate, chain and key as PEM; None: plain HTTP.
        pace: How to wait.
    """

    def __init__(
        self,
        engine: Engine,
        compose_file: ComposeFile,
        *,
        compose_path: str,
        pace: Pace,
        certificate: str | None = None,
    ) -> None:
        self._engine = engine
        self._file = compose_file
        self._compose_path = compose_path
        self._pace = pace
        self.name = balancer_name(compose_file.project)
        self._certificate = certificate
        self._haproxy = HaproxyBalancer(
            engine, self.name, compose_file.balancer_options, clock=pace.clock, sleep=pace.sleep
        )

    def create(self, state: BalancerState) -> None:
        """Create and start it, with these routes from the first moment on.

        Raises:
            StepFailed: HAProxy does not come up.
            EngineError: Its image is missing or its port is taken.
        """
        service = self._file.balancer
        body = render_container(
            service,
            project=self._file.project,
            name=self.name,
            number=1,
            secrets={},
            image_id=self._engine.require_image(service.image).id,
            compose_path=self._compose_path,
            own_labels={},
        )
        try:
            self._engine.create_container(self.name, body)
        except Conflict:
            # Another service's rollout made it a moment ago; its own start brings it up.
            self._wait()
            return
        self._haproxy.save(plan_layout(list(state.routes.values())))
        if self._certificate is not None:
            self._haproxy.save_certificate(self._certificate)
        self.start()

    def start(self, present_name: str = "") -> None:
        """Start it where it is stopped, restart it where HAProxy does not answer; undo what was done to it in place.

        Args:
            present_name: What its container is called now; empty: as it should be.
        """
        if present_name not in {"", self.name}:
            self._engine.rename(present_name, self.name)
            if self._haproxy.answers():
                return
        facts = self._engine.container(self.name) or {}
        networks = (facts.get("NetworkSettings") or {}).get("Networks") or {}
        if facts and self._file.network not in networks:
            self._engine.connect_container(
                self._file.network, self.name, aliases=(self.name, self._file.balancer.name)
            )
        if (facts.get("State") or {}).get("Running"):
            self._engine.restart(self.name, grace_seconds=_STOP_GRACE_SECONDS)
        else:
            self._engine.start(self.name)
        self._wait()

    def replace(self, state: BalancerState) -> None:
        """Put a new container in its place. Its port can only be published once, so there is a short gap."""
        self._engine.stop(self.name, grace_seconds=_STOP_GRACE_SECONDS)
        self._engine.remove(self.name, force=True)
        self.create(state)

    def take_over(self, state: BalancerState) -> None:
        """Put our configuration in force where stock Compose started it with its own."""
        self._haproxy.take_over(list(state.routes.values()))

    def reload(self, known: BalancerState) -> None:
        """Put this release's configuration and the present settings in force, with the routes that it has.

        Args:
            known: What else is known of their members: the versions.
        """
        self._haproxy.reload(known)

    def _wait(self) -> None:
        deadline = self._pace.clock() + START_SECONDS
        while not self._haproxy.answers():
            if self._pace.clock() > deadline:
                raise StepFailed(
                    f"The balancer {self.name} does not answer {START_SECONDS:g} seconds after its start.",
                    remedy="Read its log.",
                    log_tail=self._engine.logs(self.name, tail=40).splitlines(),
                )
            self._pace.pause()
