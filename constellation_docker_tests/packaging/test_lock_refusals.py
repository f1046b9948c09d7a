"""What cannot be locked, and what is said of it; packages that must be built first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from constellation_docker.engine import Engine
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.lock import (
    ServerRequirements,
)
from constellation_docker.packaging.lock_errors import (
    IndexUnreachable,
    LockConflict,
    NoMatchingWheel,
    RequirementNotFound,
    RequirementRefused,
    SourceOnlyPackage,
    SourcePackageFailed,
)
from constellation_docker.packaging.requirements import parse_lines
from constellation_docker.packaging.uv_container import LABEL, ContainerUv
from constellation_docker.settings import IndexSettings
from constellation_docker_tests.fixtures.package_index import PackageIndex
from constellation_docker_tests.packaging.locking import Locking, Target, names


def test_a_conflict_names_the_two_lines_and_carries_the_explanation(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0", requires=["shared<2"])
    package_index.add("beta", "1.0", requires=["shared>=2"])
    package_index.add("shared", "1.0")
    package_index.add("shared", "2.0")
    package_index.add("other", "1.0")

    with pytest.raises(
        LockConflict, match=r"sentiment@1: alpha==1\.0 \(requirements\.txt:2\) and beta \(the card"
    ) as caught:
        lock({"requirements.txt": "other\nalpha==1.0\n"}, ("beta", "shared"))

    assert caught.value.details["lines"] == [
        {"text": "alpha==1.0", "origin": "requirements.txt:2"},
        {"text": "beta", "origin": "the card, dependencies[1]"},
    ]
    assert "shared<2" in caught.value.details["explanation"]
    assert not caught.value.is_transient


def test_a_conflict_with_the_inference_server_names_its_line(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("numpy", "1.26.4")
    package_index.add("numpy", "2.1.0")
    server = ServerRequirements(
        lines=tuple(parse_lines("# text\nnumpy>=2,<3\n", "the inference server, onnx.txt"))
    )
    with pytest.raises(LockConflict) as caught:
        lock({"requirements.txt": "numpy<2\n"}, server=server)
    assert [line["origin"] for line in caught.value.details["lines"]] == [
        "requirements.txt:1",
        "the inference server, onnx.txt:2",
    ]


def test_a_package_that_no_index_has_is_named_with_its_line(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0", requires=["not-there-either"])
    with pytest.raises(
        RequirementNotFound, match=r"no-such-package==1 \(requirements\.txt:3\) is on no package index"
    ):
        lock({"requirements.txt": "# needs\n\nno-such-package==1\n"})
    with pytest.raises(RequirementNotFound, match="not-there-either, which another package needs"):
        lock({"requirements.txt": "alpha\n"})


def test_a_version_that_does_not_exist_is_named_with_its_line(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0")
    with pytest.raises(RequirementNotFound, match=r"alpha==9 \(the card, dependencies\[1\]\)"):
        lock({}, ("alpha==9",))


def test_a_package_without_wheels_for_the_images_python_says_so(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0", tag="cp39-cp39-manylinux_2_17_x86_64")
    with pytest.raises(
        NoMatchingWheel, match=r"alpha \(requirements\.txt:1\) cannot be installed on Python 3\.11"
    ):
        lock({"requirements.txt": "alpha\n"})
    package_index.add("beta", "1.0", requires_python=">=3.12")
    with pytest.raises(NoMatchingWheel, match=r"beta \(requirements\.txt:1\)"):
        lock({"requirements.txt": "beta\n"})
    assert names(lock({"requirements.txt": "beta\n"}, base=Target("3.12"))) == {"beta": "1.0"}


def test_a_repository_for_another_python_is_refused(lock: Locking) -> None:
    project = '[project]\nname = "m"\nversion = "1"\nrequires-python = "{}"\n'
    with pytest.raises(NoMatchingWheel, match=r"wants Python >=3\.12 .*has 3\.11"):
        lock({"pyproject.toml": project.format(">=3.12")})
    with pytest.raises(NoMatchingWheel, match=r"card asks for Python 3\.13"):
        lock({"pyproject.toml": ""}, serving_python="3.13")
    for fitting in (">=3.9", "==3.11.*", "<3.12", ">=3.11.2"):
        lock({"pyproject.toml": project.format(fitting)})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-e .", "directory"),
        (".", "directory"),
        ("./wheels/a.whl", "directory"),
        ("git+https://host/repo.git", "address"),
        ("alpha @ git+https://host/repo.git", "address"),
        ("alpha @ https://user:pa55@host/a.whl", "address"),
        ("https://user:pa55@host/a-1-py3-none-any.whl", "address"),
        ("--index-url https://user:pa55@evil.example/simple", "index of its own"),
        ("--extra-index-url=https://evil.example/simple", "index of its own"),
        ("-f https://evil.example/wheels", "index of its own"),
        ("--process-dependency-links", "option"),
        ("-r ../outside.txt", "not in the repository"),
        ("-r https://evil.example/r.txt", "not in the repository"),
        ("alpha==${VERSION}", "variable"),
        ("alpha=1", "not a requirement"),
        ("alpha beta", "not a requirement"),
    ],
)
def test_a_line_that_a_lock_cannot_hold_is_refused_with_its_origin(
    lock: Locking, line: str, what: str
) -> None:
    with pytest.raises(RequirementRefused, match=what) as caught:
        lock({"requirements.txt": f"# first\n{line}\n"})
    assert "requirements.txt:2" in str(caught.value)
    assert "pa55" not in str(caught.value) + json.dumps(caught.value.details)


def test_an_index_that_does_not_answer_is_a_passing_failure(
    lock: Locking, package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constellation_docker.packaging.uv_program.UV_VARIABLES", {"UV_HTTP_RETRIES": "0"})
    for settings in ({"url": "http://127.0.0.1:9/simple"}, {}):
        package_index.status = 503
        with pytest.raises(IndexUnreachable, match=r"127\.0\.0\.1.*does not answer") as caught:
            lock({}, ("alpha",), settings=settings)
        assert caught.value.is_transient


def test_a_package_without_wheels_is_never_built_on_this_machine(
    lock: Locking, package_index: PackageIndex, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    package_index.add_source("sourceful", "1.0", f"open({str(proof)!r}, 'w')\nrequires = 'alpha'")
    with pytest.raises(SourceOnlyPackage, match=r"sourceful \(requirements\.txt:1\) has no wheel"):
        lock({"requirements.txt": "sourceful\n"})
    assert not proof.exists()


def test_a_package_without_wheels_is_built_in_a_container(
    lock: Locking, package_index: PackageIndex, engine: Engine, python_base: BaseImage
) -> None:
    package_index.add_source("sourceful", "1.0", "requires = f'ran-as-{os.getuid()}'")
    package_index.add("ran-as-65532", "1.0")
    settings = IndexSettings(url=package_index.url, wheelhouse=None)
    builder = ContainerUv(engine, python_base, settings, network="host")

    locked = lock({"requirements.txt": "sourceful\n"}, base=python_base, builder=builder)

    assert set(names(locked)) == {"sourceful", "ran-as-65532"}
    assert {package.name: package.is_built for package in locked.packages}["sourceful"]
    assert engine.list_containers({LABEL: str(os.getpid())}) == []


def test_a_package_that_does_not_build_is_named_with_the_end_of_its_log(
    lock: Locking, package_index: PackageIndex, engine: Engine, python_base: BaseImage
) -> None:
    package_index.add_source("sourceful", "1.0", "raise RuntimeError('needs a Fortran compiler')")
    builder = ContainerUv(
        engine, python_base, IndexSettings(url=package_index.url, wheelhouse=None), network="host"
    )

    with pytest.raises(
        SourcePackageFailed, match=r"sourceful 1\.0 \(requirements\.txt:1\) has no wheel"
    ) as caught:
        lock({"requirements.txt": "sourceful\n"}, base=python_base, builder=builder)

    assert "needs a Fortran compiler" in caught.value.details["log_tail"]
    assert engine.list_containers({LABEL: str(os.getpid())}) == []
