"""An environment's Compose file."""

from __future__ import annotations

import re

import pytest
import yaml

from constellation_docker.cards.serving_options import DeployOptions, RateLimit, Reservations, Resources
from constellation_docker.compose import (
    ClashingServices,
    ComposeFile,
    Healthcheck,
    InvalidComposeFile,
    WantedService,
    check_compose_document,
    compile_environment,
    endpoint_url,
)
from constellation_docker.settings import EnvironmentSettings, RolloutSettings
from constellation_docker_tests.compose.services import BALANCER_IMAGE, wanted


def compiled(*services: WantedService, settings: EnvironmentSettings | None = None) -> ComposeFile:
    return compile_environment(
        "dev", settings or EnvironmentSettings(), services, balancer_image=BALANCER_IMAGE
    )


def test_the_text_is_the_document() -> None:
    file = compiled(wanted(env={"GREETING": "it's $5: #1"}))
    assert yaml.safe_load(file.text) == file.document


def test_a_service_is_confined_limited_and_labelled() -> None:
    service = compiled(
        wanted(
            resources=Resources(
                memory="2g", cpus=1.5, pids=100, gpus=1, reservations=Reservations(memory="1g", cpus=0.5)
            ),
            replicas=3,
            healthcheck=Healthcheck(test=("CMD", "/probe"), start_period=90),
            deploy=DeployOptions(stop_grace_period="90s"),
        )
    ).document["services"]["acme-sentiment"]
    assert service["deploy"] == {
        "replicas": 3,
        "resources": {
            "limits": {"cpus": 1.5, "memory": "2147483648", "pids": 100},
            "reservations": {
                "cpus": 0.5,
                "memory": "1073741824",
                "devices": [{"capabilities": ["gpu"], "count": 1}],
            },
        },
    }
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["user"] == "65532:65532"
    assert service["tmpfs"] == ["/tmp"]
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "1m30s"
    assert service["healthcheck"]["start_period"] == "1m30s"
    assert service["logging"] == {"driver": "json-file", "options": {"max-file": "3", "max-size": "10m"}}
    assert service["labels"]["constellation.model"] == "acme/sentiment"
    assert service["labels"]["constellation.version"] == "1.0"
    assert "ports" not in service


def test_only_the_balancer_publishes_a_port() -> None:
    file = compiled(wanted(), settings=EnvironmentSettings(bind="0.0.0.0", port=9000))
    assert file.document["services"]["balancer"]["ports"] == [
        {"mode": "ingress", "host_ip": "0.0.0.0", "target": 8080, "published": "9000", "protocol": "tcp"}
    ]


def test_a_certificate_is_in_the_file_by_a_variables_name_only() -> None:
    settings = EnvironmentSettings.model_validate(
        {"tls": {"certificate": "env:ANY", "minimum": "TLSv1.3"}, "metrics_port": 9100}
    )
    file = compiled(wanted(rate_limit=RateLimit(requests=5, per="10s")), settings=settings)
    balancer = file.document["services"]["balancer"]
    assert balancer["secrets"] == [
        {"source": "balancer-certificate", "target": "/etc/constellation-tls/server.pem"}
    ]
    assert file.document["secrets"] == {"balancer-certificate": {"environment": "BALANCER_CERTIFICATE"}}
    assert "# Needs the variable BALANCER_CERTIFICATE (" in file.text
    assert [port["target"] for port in balancer["ports"]] == [8080, 8404]
    config = file.document["configs"]["haproxy"]["content"]
    assert "alpn h2,http/1.1 ssl-min-ver TLSv1.3" in config
    assert "set-var(txn.rate) str(5:10:address) if { var(txn.slug) -m str acme-sentiment }" in config
    assert endpoint_url(settings, "a") == "https://127.0.0.1:8080/a/"


def test_a_secret_stands_in_the_file_only_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "hunter2")
    file = compiled(wanted(secrets={"HF_TOKEN": "env:HUB_TOKEN", "KEY": "file:/run/key"}))
    environment = file.document["services"]["acme-sentiment"]["environment"]
    assert environment["HF_TOKEN"].startswith("${HUB_TOKEN:?")
    assert environment["KEY"].startswith("${ACME_SENTIMENT_KEY:?")
    assert "hunter2" not in file.text
    assert "# Needs the variable HUB_TOKEN (env:HUB_TOKEN)." in file.text


def test_dollars_are_doubled_so_that_compose_reads_them_as_themselves() -> None:
    file = compiled(wanted(env={"PRICE": "$5 ${NOT}"}))
    assert file.document["services"]["acme-sentiment"]["environment"]["PRICE"] == "$$5 $${NOT}"
    assert file.services["acme-sentiment"].service.environment["PRICE"] == "$5 ${NOT}"


def test_two_names_with_one_slug_are_refused() -> None:
    with pytest.raises(ClashingServices, match="acme/b and acme/a would both be the service acme"):
        compiled(wanted("acme/a", slug="acme"), wanted("acme/b", slug="acme"))


def test_a_model_cannot_take_the_balancers_name() -> None:
    with pytest.raises(ClashingServices, match="the balancer"):
        compiled(wanted("x", slug="balancer"))


def test_what_is_stopped_or_deleted_is_left_out() -> None:
    file = compiled(wanted("a", state="stopped"), wanted("b", state="deleted"), wanted("c"))
    assert set(file.document["services"]) == {"balancer", "c"}


def test_the_order_of_the_rows_does_not_change_the_file() -> None:
    assert compiled(wanted("a"), wanted("b")).text == compiled(wanted("b"), wanted("a")).text


@pytest.mark.parametrize(
    ("changes", "is_replaced"),
    [
        ({"replicas": 4}, False),
        ({"revision": 9}, False),
        ({"deploy": DeployOptions(min_healthy_time="1m")}, False),
        ({"image": "x@sha256:" + "b" * 64}, True),
        ({"env": {"A": "b"}}, True),
        ({"secrets": {"A": "env:B"}}, True),
        ({"resources": Resources(memory="2g")}, True),
        ({"port": 9000}, True),
        ({"ready_path": "/health"}, True),
        ({"deploy": DeployOptions(stop_grace_period="1m")}, True),
    ],
)
def test_only_what_a_replica_is_created_from_changes_the_spec_hash(
    changes: dict[str, object], is_replaced: bool
) -> None:
    before = compiled(wanted()).services["acme-sentiment"].spec_hash
    after = compiled(wanted(**changes)).services["acme-sentiment"].spec_hash
    assert (before != after) is is_replaced


def test_another_model_in_the_environment_does_not_change_the_balancers_spec() -> None:
    assert compiled(wanted("a")).balancer_hash == compiled(wanted("a"), wanted("b")).balancer_hash


def test_deadlines_come_from_the_card_and_else_from_the_settings() -> None:
    file = compile_environment(
        "dev",
        EnvironmentSettings(),
        [wanted(deploy=DeployOptions(order="stop-first", drain_timeout="1m30s"))],
        balancer_image=BALANCER_IMAGE,
        rollout=RolloutSettings(healthy_deadline_seconds=7),
    )
    options = file.services["acme-sentiment"].options
    assert (options.order, options.drain_timeout, options.healthy_deadline) == ("stop-first", 90, 7)


def test_a_document_that_does_not_fit_the_official_schema_is_refused_with_the_place() -> None:
    document = compiled(wanted()).document
    document["services"]["acme-sentiment"]["deploy"]["replicas"] = {"not": "a number"}
    with pytest.raises(InvalidComposeFile, match=re.escape("services.acme-sentiment.deploy.replicas")):
        check_compose_document(document)


def test_a_thousand_services_compile_to_one_valid_file() -> None:
    file = compiled(*(wanted(f"acme/model-{index}") for index in range(1000)))
    assert len(file.document["services"]) == 1001
    assert len(file.config_hashes) == 1001


def test_an_endpoint_is_under_the_models_slug() -> None:
    assert endpoint_url(EnvironmentSettings(port=9000), "a") == "http://127.0.0.1:9000/a/"
    assert (
        endpoint_url(EnvironmentSettings(public_url="https://models.example/"), "a")
        == "https://models.example/a/"
    )
