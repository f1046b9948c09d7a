"""The build context: the same bytes every time, straight from the disk."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from constellation_docker.errors import InvalidInput
from constellation_docker.packaging.context import (
    ContextChanged,
    ContextFile,
    plan_environment_context,
    plan_model_context,
    stream_context,
    write_context,
)
from constellation_docker.packaging.lock import DependencyLock
from constellation_docker.packaging.materials import (
    BuildMaterials,
    choose_wheels,
    find_uv,
    gather_materials,
)
from constellation_docker.packaging.recipe import ImageRecipe
from constellation_docker.packaging.tree import SourceFile
from constellation_docker.settings import IndexSettings
from constellation_docker_tests.packaging.images import make_lock, make_recipe, make_source
from constellation_docker_tests.packaging.test_dockerfile import BASE


@pytest.fixture
def recipe(tmp_path: Path) -> ImageRecipe:
    return make_recipe(
        BASE, make_source(tmp_path / "repository", {"a/model.onnx": b"weights", "config.json": "{}"})
    )


def unpacked(files: tuple[ContextFile, ...]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream_context(files)))) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_the_context_is_the_same_bytes_whatever_the_disk_says_of_times_and_order(
    recipe: ImageRecipe, tmp_path: Path
) -> None:
    first = b"".join(stream_context(plan_model_context(recipe)))
    for path in (tmp_path / "repository").rglob("*"):
        os.utime(path, (1, 1))
    again = b"".join(stream_context(tuple(reversed(tuple(reversed(plan_model_context(recipe)))))))
    assert first == again


def test_every_entry_has_one_time_and_one_owner(recipe: ImageRecipe) -> None:
    members = unpacked(plan_model_context(recipe)).values()
    assert len({member.mtime for member in members}) == 1
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    assert {member.mode for member in members if member.isfile()} == {0o644}


def test_each_layer_has_one_directory_at_its_top(recipe: ImageRecipe) -> None:
    names = unpacked(plan_model_context(recipe))
    for layer in ("model", "card"):
        tops = {name.split("/")[2] for name in names if name.startswith(f"layers/{layer}/")}
        assert tops == {layer}


def test_links_stay_links(tmp_path: Path) -> None:
    source = make_source(tmp_path / "repository", {"model.onnx": b"weights"})
    (source.path / "latest.onnx").symlink_to("model.onnx")
    link = SourceFile(path="latest.onnx", size_bytes=10, sha256="0" * 64, mode="link")
    recipe = make_recipe(BASE, source.model_copy(update={"files": (*source.files, link)}))
    entry = unpacked(plan_model_context(recipe))["layers/model/model/latest.onnx"]
    assert entry.issym()
    assert entry.linkname == "model.onnx"


def test_weights_are_not_sent_to_build_an_environment(recipe: ImageRecipe, tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_bytes(b"program")
    names = set(unpacked(plan_environment_context(recipe, BuildMaterials(uv=uv))))
    assert not any(name.startswith("layers") for name in names)
    assert {"build/uv", "build/requirements.lock", "build/assembly.py", "Dockerfile"} <= names


def test_neither_uv_nor_wheels_are_sent_once_the_environment_is_there(recipe: ImageRecipe) -> None:
    names = set(unpacked(plan_model_context(recipe)))
    assert not any(name.startswith(("build/uv", "build/wheelhouse")) for name in names)


def test_large_files_are_streamed_in_pieces(tmp_path: Path) -> None:
    large = tmp_path / "weights"
    with large.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    sizes = [len(piece) for piece in stream_context((ContextFile.of_path("weights", large),))]
    assert max(sizes) <= 1024 * 1024
    assert sum(sizes) > 50 * 1024 * 1024


@pytest.mark.parametrize("change", ["grows", "shrinks", "goes"])
def test_a_file_that_changes_while_it_is_sent_is_an_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 1000)
    file = ContextFile.of_path("weights", path)
    if change == "goes":
        path.unlink()
    else:
        path.write_bytes(b"x" * (2000 if change == "grows" else 10))
    with pytest.raises(ContextChanged, match=str(path)) as caught:
        list(stream_context((file,)))
    assert caught.value.is_transient


def test_credentials_are_readable_by_root_alone_and_shown_nowhere(
    recipe: ImageRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEX_LOGIN", "team:hunter2")
    settings = IndexSettings(
        url="https://index.example/simple", credentials={"index.example": "env:INDEX_LOGIN"}, wheelhouse=None
    )
    materials = gather_materials(
        make_lock(), settings, architecture="amd64", store=tmp_path, on_line=lambda _: None
    )
    files = plan_environment_context(recipe, materials)
    assert unpacked(files)["build/credentials.json"].mode == 0o600
    assert b"hunter2" in next(file.content for file in files if file.path == "build/credentials.json")
    assert "hunter2" not in repr(materials) + repr(files)


def test_credentials_of_a_wrong_form_are_refused_without_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEX_LOGIN", "hunter2")
    settings = IndexSettings(
        url="https://index.example/simple", credentials={"index.example": "env:INDEX_LOGIN"}, wheelhouse=None
    )
    with pytest.raises(InvalidInput, match=r"index\.example") as caught:
        gather_materials(make_lock(), settings, architecture="amd64", store=tmp_path, on_line=lambda _: None)
    assert "hunter2" not in str(caught.value)


def test_only_wheels_that_the_lock_names_are_sent() -> None:
    lock = make_lock("x", packages=({"name": "Torch", "version": "2.13.0+cpu", "required_by": ()},))
    wheels = [
        Path("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"),
        Path("torch-2.12.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"),
        Path("numpy-2.0.0-cp311-cp311-manylinux_2_28_x86_64.whl"),
        Path("not-a-wheel.whl"),
    ]
    assert choose_wheels(lock, wheels) == (wheels[0],)


def test_uv_is_told_of_the_indexes_and_of_where_torch_comes_from(tmp_path: Path) -> None:
    settings = IndexSettings(url="https://a/simple", extra_urls=("https://b/simple",), wheelhouse=None)
    torch = make_lock("x", packages=({"name": "torch", "version": "2.13.0", "required_by": ()},))

    def arguments(lock: DependencyLock, settings: IndexSettings) -> tuple[str, ...]:
        return gather_materials(
            lock, settings, architecture="amd64", store=tmp_path, on_line=lambda _: None
        ).arguments

    assert "main=https://a/simple" in arguments(make_lock(), settings)
    assert "extra0=https://b/simple" in arguments(make_lock(), settings)
    assert "--torch-backend" not in arguments(make_lock(), settings)
    assert "--torch-backend" in arguments(torch, settings)
    (tmp_path / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert "--torch-backend" not in arguments(torch, settings.model_copy(update={"wheelhouse": tmp_path}))


def test_an_engine_of_another_architecture_gets_its_own_uv(tmp_path: Path) -> None:
    told: list[str] = []
    program = find_uv("arm64", tmp_path, IndexSettings(wheelhouse=None), told.append)
    assert program.read_bytes()[:4] == b"\x7fELF"
    assert program.read_bytes()[18:20] == (183).to_bytes(2, "little")
    assert find_uv("arm64", tmp_path, IndexSettings(wheelhouse=None), told.append) == program
    assert len(told) == 1


def test_a_context_can_be_written_out_for_buildx(recipe: ImageRecipe, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    write_context(plan_model_context(recipe), folder)
    assert (folder / "Dockerfile").read_text() == recipe.dockerfile
    assert (folder / "layers/model/model/a/model.onnx").read_bytes() == b"weights"
