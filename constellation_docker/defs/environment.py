"""One environment, seen from a run: its wanted rows, its compiled file, its engine, its leases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from constellation_docker.cards import (
    CardNotFound,
    CardStore,
    DeploymentRow,
    InvalidCard,
    InvalidRow,
    Lease,
    LeaseHeld,
    SlugTaken,
    slug_of,
)
from constellation_docker.cards.rows import resolve_resources
from constellation_docker.compose import (
    ComposeFile,
    NotPublished,
    WantedService,
    compile_environment,
    wanted_service,
)
from constellation_docker.defs.launches import IN_PROGRESS
from constellation_docker.engine import Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging import ensure_base_image, find_base_image
from constellation_docker.rollout import renew_certificate
from constellation_docker.settings import EnvironmentSettings, Settings

LEASE_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Environment:
    """One environment of the settings.

    Args:
        name: Its name.
        settings: All settings.
        engine: The engine that it runs on.
    """

    name: str
    settings: Settings
    engine: Engine

    @property
    def own_settings(self) -> EnvironmentSettings:
        """The environment's own settings."""
        return self.settings.environment(self.name)

    def compile(self, store: CardStore, on_line: Callable[[str], None]) -> ComposeFile:
        """The Compose file of all that is wanted.

        Where the wanted version is not published yet, its last stable release stands in for it. A row that cannot be
        used is told and left out, and what runs for it is kept as it is.
        """
        balancer = ensure_base_image(self.engine, "balancer", self.settings.base_image, on_line)
        return self._compile_with(balancer.reference, store, on_line)

    def compile_to_compare(self, store: CardStore, on_line: Callable[[str], None]) -> ComposeFile:
        """As `compile`, for a look only: the balancer's image is neither made nor pulled, which may take minutes.

        Where the engine has not got it, the file names what the settings name. That is good enough to compare the
        models' services with, which do not depend on it, and not to be executed.
        """
        balancer = find_base_image(self.engine, "balancer", self.settings.base_image)
        reference = balancer.reference if balancer else self.settings.base_image.haproxy
        return self._compile_with(reference, store, on_line)

    def _compile_with(
        self, balancer_image: str, store: CardStore, on_line: Callable[[str], None]
    ) -> ComposeFile:
        services: list[WantedService] = []
        kept: dict[str, str] = {}
        for row in store.wanted(self.name):
            if isinstance(row, InvalidRow):
                on_line(f"Left out {row.title}: {row.error}")
                # A name whose slug is another model's must not keep that model's service.
                if not isinstance(row.error, SlugTaken):
                    kept[slug_of(row.model_name)] = "its row cannot be used"
            elif row.state == "running" and row.row.publication is not None:
                services.append(wanted_service(row))
            elif row.state == "running":
                waiting = f"{row.row.key} is wanted, and not published yet"
                stable = last_stable_service(store, row)
                on_line(f"{waiting}. {stable.model_version if stable else 'What runs'} stays until then.")
                if stable is not None:
                    services.append(stable)
                else:
                    kept[row.row.card.slug] = waiting
        return compile_environment(
            self.name,
            self.own_settings,
            services,
            balancer_image=balancer_image,
            rollout=self.settings.rollout,
            kept=kept,
        )

    def write(self, compose_file: ComposeFile) -> Path:
        """Keep the file where `docker compose -f` finds it; in one move, so that nobody reads half of it."""
        path = self.settings.home.absolute() / "environments" / self.name / "compose.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{time.monotonic_ns()}.part")
        temporary.write_text(compose_file.text, encoding="utf-8")
        temporary.replace(path)
        return path

    def keep_certificate(self, compose_file: ComposeFile, on_line: Callable[[str], None]) -> None:
        """Renew the certificate that the balancer shows, where that is due. What does not succeed is told and tried again.

        Args:
            compose_file: The environment's Compose file.
            on_line: Told of a renewal, or why there is none.
        """
        try:
            renewed = renew_certificate(
                compose_file, engine=self.engine, settings=self.own_settings, on_line=on_line
            )
        except ConstellationError as error:
            on_line(f"{self.name}: the balancer keeps the certificate that it has: {error}")
            return
        if renewed is not None:
            on_line(
                f"{self.name}: the balancer shows a new certificate, good until {renewed.not_after:%Y-%m-%d}."
            )

    @contextmanager
    def leased(
        self,
        store: CardStore,
        model: str,
        run_id: str,
        instance: dg.DagsterInstance,
        on_line: Callable[[str], None],
    ) -> Iterator[Lease]:
        """The sole right to work on a service, taken over at once from a run that has ended.

        Raises:
            LeaseHeld: Somebody else holds it for longer than a lease lasts.
        """
        lease = store.lease(self.name, model, holder=run_id, seconds=self.settings.rollout.lease_seconds)
        deadline = time.monotonic() + self.settings.rollout.lease_seconds + 5
        while True:
            try:
                lease.acquire()
                break
            except LeaseHeld as held:
                holder = str(held.details.get("holder"))
                if _has_ended(instance, holder):
                    on_line(f"The run {holder} has ended and left its lease: taking it over.")
                    store.lease(self.name, model, holder=holder, seconds=1).release()
                elif time.monotonic() > deadline:
                    raise
                else:
                    time.sleep(LEASE_POLL_SECONDS)
        with lease:
            yield lease


def last_stable_service(store: CardStore, row: DeploymentRow) -> WantedService | None:
    """What a service ran when its rollout last ended well; None where it did not run then, or cannot run any more."""
    history = store.releases(row.environment, row.model_name)
    release = next((release for release in history if release.stable_at is not None), None)
    if release is None or release.state != "running":
        return None
    try:
        model = store.get(release.model_id)
        service = wanted_service(
            replace(
                row,
                model_id=model.model_id,
                row=model,
                replicas=release.replicas,
                resources=resolve_resources(model.card, release.resources),
                revision=release.revision,
            )
        )
    except (CardNotFound, InvalidCard, SlugTaken, NotPublished):
        return None
    return service.model_copy(update={"image": release.image or service.image})


def _has_ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status not in IN_PROGRESS
