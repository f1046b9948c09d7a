"""Dependency locks, resolved by the real uv."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from constellation_docker.errors import InvalidInput
from constellation_docker.packaging.lock import (
    SHARED_SECONDS,
    ServerRequirements,
    server_requirements,
)
from constellation_docker.packaging.lock_errors import (
    IndexDenied,
    RequirementRefused,
)
from constellation_docker.packaging.requirements import parse_lines
from constellation_docker.packaging.runtime import Runtime, RuntimeChoice
from constellation_docker.packaging.wheelhouse import choose_local_wheels
from constellation_docker_tests.fixtures.package_index import PackageIndex, make_wheel
from constellation_docker_tests.packaging.locking import Locking, Target, names


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
