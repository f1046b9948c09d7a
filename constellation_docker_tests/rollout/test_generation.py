"""What a replica's container is created from."""

from __future__ import annotations

from constellation_docker.cards.serving_options import Reservations, Resources
from constellation_docker.compose import Healthcheck, compile_environment, labels
from constellation_docker.rollout.generation import render_container
from constellation_docker.settings import EnvironmentSettings
from constellation_docker_tests.compose.services import BALANCER_IMAGE, wanted


def test_a_replica_is_confined_limited_and_labelled_as_the_compose_file_says() -> None:
    service = (
        compile_environment(
            "dev",
            EnvironmentSettings(),
            [
                wanted(
                    env={"A": "$1"},
                    secrets={"TOKEN": "env:ANY"},
                    healthcheck=Healthcheck(test=("CMD", "/x"), start_period=60),
                    resources=Resources(
                        memory="1g", cpus=0.5, pids=99, gpus=2, reservations=Reservations(memory="512m")
                    ),
                )
            ],
            balancer_image=BALANCER_IMAGE,
        )
        .services["acme-sentiment"]
        .service
    )
    body = render_container(
        service,
        project="p",
        name="p-acme-sentiment-3",
        number=3,
        secrets={"TOKEN": "s3cret"},
        image_id="sha256:1",
        compose_path="/x/compose.yaml",
        own_labels={labels.REVISION: "7"},
        aliases=("3.acme-sentiment",),
    )
    host = body["HostConfig"]
    assert body["Env"] == ["A=$1", "TOKEN=s3cret"]
    assert body["User"] == "65532:65532"
    assert body["Healthcheck"]["StartPeriod"] == 60_000_000_000
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (1 << 30, 500_000_000, 99)
    assert host["MemoryReservation"] == 1 << 29
    assert host["DeviceRequests"] == [{"Count": 2, "Capabilities": [["gpu"]]}]
    assert (host["CapDrop"], host["ReadonlyRootfs"]) == (["ALL"], True)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["RestartPolicy"] == {"Name": "unless-stopped"}
    assert host["PortBindings"] == {}
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "p_default": {"Aliases": ["p-acme-sentiment-3", "acme-sentiment", "3.acme-sentiment"]}
    }
    found = body["Labels"]
    assert found[labels.COMPOSE_PROJECT] == "p"
    assert found[labels.COMPOSE_NUMBER] == "3"
    assert found[labels.COMPOSE_ONEOFF] == "False"
    assert found[labels.COMPOSE_CONFIG_FILES] == "/x/compose.yaml"
    assert found[labels.COMPOSE_WORKING_DIR] == "/x"
    assert found[labels.REVISION] == "7"
    assert "s3cret" not in str(found)
