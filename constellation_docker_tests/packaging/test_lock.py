"""Dependency locks, resolved by the real uv."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.errors import InvalidInput
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.lock import (
    SHARED_SECONDS,
    DependencyLock,
    ServerRequirements,
    resolve_lock,
    server_requirements,
)
from constellation_docker.packaging.lock_errors import (
    IndexDenied,
    IndexUnreachable,
    LockConflict,
    NoMatchingWheel,
    RequirementNotFound,
    RequirementRefused,
    SourceOnlyPackage,
    SourcePackageFailed,
)
from constellation_docker.packaging.requirements import parse_lines
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice
from constellation_docker.packaging.source import fetch_source
from constellation_docker.packaging.uv_container import LABEL, ContainerUv
from constellation_docker.packaging.wheelhouse import choose_local_wheels
from constellation_docker.settings import IndexSettings, SourceSettings
from constellation_docker_tests.fixtures.package_index import PackageIndex, make_wheel

CUSTOM = RuntimeChoice(runtime=Runtime.CUSTOM, reason="", task=None)
NOTHING = ServerRequirements()


@dataclass(frozen=True)
class Target:
    python_version: str | None = "3.11"
    libc: str = "manylinux_2_36"
    architecture: str = "amd64"


Locking = Callable[..., DependencyLock]


@pytest.fixture
def lock(tmp_path: Path, package_index: PackageIndex) -> Locking:
    """Lock a repository of some files with a card, against the index of the test."""

    def lock(
        files: Mapping[str, str | bytes] | None = None,
        dependencies: tuple[str, ...] = (),
        *,
        base: Any = Target(),
        settings: Mapping[str, Any] | None = None,
        server: ServerRequirements | None = NOTHING,
        choice: RuntimeChoice = CUSTOM,
        lines: list[str] | None = None,
        serving_python: str | None = None,
        **options: Any,
    ) -> DependencyLock:
        directory = tmp_path / "model"
        directory.mkdir(exist_ok=True)
        for name, content in {"README.md": "# Model", **(files or {})}.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        source = fetch_source(
            f"file://{directory}", None, settings=SourceSettings(allowed_schemes=("file",)), ca_bundle=None,
            store=tmp_path / "store", model="m@1", on_line=lambda line: None,
        )  # fmt: skip
        card = ModelCard(
            model_name="sentiment",
            model_version="1",
            repo_url=f"file://{directory}",
            dependencies=dependencies,
            constellation={"python": serving_python},
        )
        return resolve_lock(
            source,
            card,
            choice,
            base=base,
            settings=IndexSettings(**{"url": package_index.url, "wheelhouse": None, **(settings or {})}),
            store=tmp_path / "store",
            on_line=(lines if lines is not None else []).append,
            server=server,
            **options,
        )

    return lock


def names(locked: DependencyLock) -> dict[str, str]:
    return {package.name: package.version for package in locked.packages}


def test_lines_of_all_files_and_the_card_become_one_hashed_lock(
    lock: Locking, package_index: PackageIndex
) -> None:
    for name in ("alpha", "beta", "gamma", "delta", "epsilon"):
        package_index.add(name, "1.0", requires=["shared>=1"] if name == "alpha" else [])
    package_index.add("alpha", "2.0")
    package_index.add("shared", "1.5")

    locked = lock(
        {
            "requirements.txt": "alpha<2  # the old one\n-r more/extra.txt\n-c constraints.txt\n",
            "more/extra.txt": "beta ; python_version >= '3.8'\nabsent ; sys_platform == 'win32'\n",
            "constraints.txt": "shared==1.5\n",
            "pyproject.toml": '[project]\nname = "m"\nversion = "1"\ndependencies = ["gamma[fast]>=1"]\n',
            "Pipfile": '[packages]\ndelta = "*"\n[dev-packages]\nabsent = "*"\n',
        },
        ("epsilon==1.0",),
    )

    assert names(locked) == {
        "alpha": "1.0", "beta": "1.0", "gamma": "1.0", "delta": "1.0", "epsilon": "1.0", "shared": "1.5",
    }  # fmt: skip
    assert all(
        re.search(rf"^{name}==\S+ \\\n    --hash=sha256:[0-9a-f]{{64}}$", locked.text, re.M)
        for name in names(locked)
    )
    required_by = {package.name: package.required_by for package in locked.packages}
    assert required_by["shared"] == ("alpha",)
    assert required_by["gamma"] == ("pyproject.toml:4",)
    assert required_by["epsilon"] == ("the card, dependencies[1]",)
    assert required_by["beta"] == ("more/extra.txt:1",)
    assert "alpha<2  (requirements.txt:1)" in locked.inputs


def test_a_lock_names_no_index_path_or_time_and_repeats_exactly(
    lock: Locking, package_index: PackageIndex, tmp_path: Path
) -> None:
    package_index.add("alpha", "1.0", requires=["beta"])
    package_index.add("beta", "1.0")
    first = lock({}, ("alpha",))
    second = lock({}, ("alpha",), refresh=True)
    assert (first.text, first.digest) == (second.text, second.digest)
    assert not re.search(r"127\.0\.0\.1|http|/tmp|#|20\d\d-", first.text)


def test_small_packages_of_the_real_index_are_locked(lock: Locking) -> None:
    locked = lock({"requirements.txt": "six>=1.16\nidna\npackaging\n"}, settings={"url": None})
    assert set(names(locked)) == {"six", "idna", "packaging"}
    assert all(package.size_bytes for package in locked.packages)


def test_nothing_asked_for_is_an_empty_lock(lock: Locking) -> None:
    locked = lock()
    assert (locked.text, locked.packages) == ("", ())


def test_a_dockerfile_of_the_models_own_has_an_empty_lock(lock: Locking) -> None:
    choice = RuntimeChoice(runtime=Runtime.DOCKERFILE, reason="", task=None)
    assert lock({"requirements.txt": "no-such-package\n"}, choice=choice, server=None).packages == ()


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


def test_only_the_hashes_of_files_for_the_platform_are_locked(
    lock: Locking, package_index: PackageIndex
) -> None:
    mine = package_index.add("alpha", "1.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    first = lock({}, ("alpha",))
    for tag in (
        "cp311-cp311-win_amd64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_28_aarch64",
    ):
        package_index.add("alpha", "1.0", tag=tag)
    second = lock({}, ("alpha",), refresh=True)
    assert second.text == first.text
    assert mine.exists()
    arm = lock({}, ("alpha",), base=Target(architecture="arm64"))
    assert (arm.platform, arm.text == first.text) == ("aarch64-manylinux_2_36", False)


def test_wheels_with_a_local_version_in_the_wheelhouse_are_preferred(
    lock: Locking, package_index: PackageIndex, tmp_path: Path
) -> None:
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    make_wheel(wheelhouse, "torch", "2.1.0+cpu")
    make_wheel(wheelhouse, "torch", "2.2.0+cpu", tag="cp39-cp39-win_amd64")
    package_index.add("torch", "2.1.0", requires=["cuda"])
    package_index.add("torch", "2.3.0", requires=["cuda"])
    package_index.add("cuda", "13")
    settings = {"wheelhouse": wheelhouse}

    locked = lock({}, ("torch>=2",), settings=settings)
    assert names(locked) == {"torch": "2.1.0+cpu"}
    assert str(wheelhouse) not in locked.text
    assert names(lock({}, ("cuda",), settings=settings)) == {"cuda": "13"}


def test_a_wheelhouse_that_does_not_fit_gives_way(
    lock: Locking, package_index: PackageIndex, tmp_path: Path
) -> None:
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    make_wheel(wheelhouse, "fast", "2.1.0+cpu")
    package_index.add("fast", "1.0")
    lines: list[str] = []
    locked = lock({}, ("fast<2",), settings={"wheelhouse": wheelhouse}, lines=lines)
    assert names(locked) == {"fast": "1.0"}
    assert any("wheelhouse" in line for line in lines)


def test_the_newest_fitting_local_wheel_is_chosen() -> None:
    chosen = choose_local_wheels(
        [Path(name) for name in (
            "torch-2.1.0+cpu-cp311-cp311-linux_x86_64.whl",
            "torch-2.2.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
            "torch-2.3.0+cpu-cp311-cp311-manylinux_2_39_x86_64.whl",
            "torch-2.4.0-cp311-cp311-linux_x86_64.whl",
            "not a wheel.whl",
        )],
        "3.11",
        "x86_64-manylinux_2_36",
    )  # fmt: skip
    assert [line.text for line in chosen] == ["torch==2.2.0+cpu"]


def test_the_same_lines_get_the_same_lock_until_they_are_refreshed(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0")
    first = lock({}, ("alpha",), now=lambda: 0.0)
    package_index.add("alpha", "2.0")
    package_index.requests.clear()

    again = lock({}, ("alpha",), now=lambda: 10.0 * SHARED_SECONDS)
    assert (again.digest, package_index.requests) == (first.digest, [])
    assert names(lock({}, ("alpha",), refresh=True)) == {"alpha": "2.0"}


def test_another_version_of_a_model_shares_the_lock_for_a_week(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0")
    lock({"weights.bin": "one"}, ("alpha",), now=lambda: 0.0)
    package_index.add("alpha", "2.0")

    assert names(lock({"weights.bin": "two"}, ("alpha",), now=lambda: SHARED_SECONDS - 1.0)) == {
        "alpha": "1.0"
    }
    assert names(lock({"weights.bin": "three"}, ("alpha",), now=lambda: 3.0 * SHARED_SECONDS)) == {
        "alpha": "2.0"
    }


def test_the_same_question_at_the_same_time_is_resolved_once(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0")
    with ThreadPoolExecutor(3) as pool:
        locks = list(pool.map(lambda _: lock({}, ("alpha",)), range(3)))
    assert len({locked.digest for locked in locks}) == 1
    looks = package_index.requests.count("/simple/alpha/")
    lock({}, ("alpha",), refresh=True)
    assert package_index.requests.count("/simple/alpha/") == 2 * looks


def test_a_half_written_lock_in_the_store_is_resolved_anew(
    lock: Locking, package_index: PackageIndex, tmp_path: Path
) -> None:
    package_index.add("alpha", "1.0")
    first = lock({}, ("alpha",))
    for path in (tmp_path / "store/locks").glob("*.json"):
        path.write_bytes(path.read_bytes()[:20])
    assert lock({}, ("alpha",)).digest == first.digest


def test_overrides_of_the_server_leave_out_what_nobody_else_needs(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("onnxruntime", "1.0", requires=["sympy", "flatbuffers"])
    package_index.add("sympy", "1.0")
    package_index.add("flatbuffers", "1.0")
    package_index.add("algebra", "1.0", requires=["sympy"])
    server = ServerRequirements(
        lines=tuple(parse_lines("onnxruntime", "server")),
        overrides=("sympy; sys_platform == 'never'", "flatbuffers; sys_platform == 'never'"),
    )
    assert set(names(lock({}, server=server))) == {"onnxruntime"}
    assert set(names(lock({}, ("algebra",), server=server))) == {"onnxruntime", "algebra", "sympy"}
    assert set(names(lock({}, ("flatbuffers", "onnxruntime"), server=server))) == {
        "onnxruntime",
        "flatbuffers",
    }


def test_the_servers_own_requirements_are_read_for_runtime_and_task() -> None:
    onnx = server_requirements(RuntimeChoice(runtime=Runtime.ONNX, reason="", task="text-classification"))
    assert "onnxruntime" in {line.name for line in onnx.lines}
    assert any(line.startswith("sympy") for line in onnx.overrides)
    image = server_requirements(RuntimeChoice(runtime=Runtime.ONNX, reason="", task="image-classification"))
    assert "pillow" in {line.name for line in image.lines}
    transformers = server_requirements(
        RuntimeChoice(runtime=Runtime.TRANSFORMERS, reason="", task="fill-mask")
    )
    assert "torch" in {line.name for line in transformers.lines}
    assert transformers.overrides == ()


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


def test_options_that_change_nothing_are_left_out_with_a_notice(
    lock: Locking, package_index: PackageIndex
) -> None:
    package_index.add("alpha", "1.0")
    package_index.add("alpha", "2.0rc1")
    text = (
        f"--index-url {package_index.url}/\n--extra-index-url https://download.pytorch.org/whl/cu121\n--pre\n"
        "--prefer-binary\nalpha \\\n    --hash=sha256:" + "0" * 64 + "\n"
    )
    locked = lock({"requirements.txt": text.encode("utf-16")})
    assert names(locked) == {"alpha": "2.0rc1"}
    assert [notice.split(":")[1] for notice in locked.notices] == ["1", "2", "4", "5"]


def test_poetry_and_pipfile_ranges_are_understood(lock: Locking, package_index: PackageIndex) -> None:
    for version in ("1.2.3", "1.9.0", "2.0.0"):
        package_index.add("alpha", version)
        package_index.add("beta", version)
    package_index.add("gamma", "0.3.1")
    package_index.add("gamma", "0.4.0")
    poetry = (
        '[tool.poetry.dependencies]\npython = "^3.9"\nalpha = "^1.2"\nbeta = {version = "~1.2", extras = ["x"]}\n'
        'gamma = "^0.3"\nabsent = {version = "*", optional = true}\n'
    )
    assert names(lock({"pyproject.toml": poetry})) == {"alpha": "1.9.0", "beta": "1.2.3", "gamma": "0.3.1"}
    with pytest.raises(RequirementRefused, match=r"'alpha' \(pyproject\.toml:2\) comes from a git"):
        lock({"pyproject.toml": '[tool.poetry.dependencies]\nalpha = {git = "https://host/x"}\n'})
    with pytest.raises(RequirementRefused, match=r"Pipfile names the package index 'https://\*\*\*@evil"):
        lock({"pyproject.toml": "", "Pipfile": '[[source]]\nurl = "https://u:p@evil.example/simple"\n'})
    with pytest.raises(RequirementRefused, match="not TOML"):
        lock({"pyproject.toml": "[project\n", "Pipfile": ""})


def test_an_index_that_does_not_answer_is_a_passing_failure(
    lock: Locking, package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constellation_docker.packaging.uv_program.UV_VARIABLES", {"UV_HTTP_RETRIES": "0"})
    for settings in ({"url": "http://127.0.0.1:9/simple"}, {}):
        package_index.status = 503
        with pytest.raises(IndexUnreachable, match=r"127\.0\.0\.1.*does not answer") as caught:
            lock({}, ("alpha",), settings=settings)
        assert caught.value.is_transient


def test_an_index_with_a_password_is_read_by_reference(
    lock: Locking, package_index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_index.add("alpha", "1.0")
    package_index.password = "p4ss w'ord"
    monkeypatch.setenv("INDEX_LOGIN", f"reader:{package_index.password}")
    monkeypatch.setenv("WRONG_LOGIN", "reader:wrong-secret")
    host = package_index.url.removeprefix("http://").removesuffix("/simple")

    with pytest.raises(IndexDenied, match=r"index\.credentials"):
        lock({}, ("alpha",))
    with pytest.raises(IndexDenied) as caught:
        lock({}, ("alpha",), settings={"credentials": {host: "env:WRONG_LOGIN"}})
    assert "wrong-secret" not in str(caught.value) + json.dumps(caught.value.details)
    assert names(lock({}, ("alpha",), settings={"credentials": {host: "env:INDEX_LOGIN"}})) == {
        "alpha": "1.0"
    }
    with pytest.raises(InvalidInput, match="credentials in its address"):
        lock({}, ("alpha",), settings={"url": package_index.url.replace("://", "://reader:x@")}, refresh=True)
    held = [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and b"p4ss" in path.read_bytes()
    ]
    assert held == []


def test_configuration_of_the_machine_does_not_reach_the_resolver(
    lock: Locking, package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_index.add("alpha", "1.0")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CONSTRAINT", "/nonexistent")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert names(lock({}, ("alpha",))) == {"alpha": "1.0"}


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
