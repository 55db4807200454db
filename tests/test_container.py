"""The image and the compose files, as far as they can be held to their word without a container engine."""

import asyncio
import json
import os
import re
import shutil
import socket
import sys
import zipfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from receiver.cli import cli
from receiver.service.composition import http_app
from receiver.service.lifecycle import DRAIN
from receiver.settings import DECLARED, FILE_SUFFIX, Settings, variable
from tests.support.service import zapwatch

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
DEMO = (ROOT / "compose.demo.yaml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
IGNORE = [
    line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
]
ROOMS = {"statemachine", "db", "receiver"}


def copied() -> list[str]:
    """Return what the Dockerfile copies from the project."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def is_ignored(path: str) -> bool:
    """Say whether .dockerignore keeps a path from the builder: the last pattern that fits it decides."""
    parts = path.split("/")
    heads = [parts[: length + 1] for length in range(len(parts))]
    verdict = False
    for pattern in IGNORE:
        if any(_fits(head, pattern.removeprefix("!")) for head in heads):
            verdict = not pattern.startswith("!")
    return verdict


def _fits(parts: list[str], pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(parts[-1], pattern.removeprefix("**/"))
    wanted = pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def context() -> Iterator[str]:
    """Yield every file that the Dockerfile's COPY lines bring to the builder."""
    for source in copied():
        found = (ROOT / source).rglob("*") if (ROOT / source).is_dir() else [ROOT / source]
        names = (path.relative_to(ROOT).as_posix() for path in found if path.is_file())
        yield from (name for name in names if not is_ignored(name))


def compose_service(name: str) -> str:
    """Return the lines of a service in compose.yaml."""
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", COMPOSE, re.MULTILINE)
    assert found is not None
    return found[1]


async def run(
    *command: str, environ: Mapping[str, str] = MappingProxyType({}), cwd: Path = ROOT
) -> tuple[int | None, str, str]:
    """Run a command with this environment and no other setting; return exit code, stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZAPWATCH_")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**kept, **environ}, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def health(port: int) -> int | None:
    """Return the exit code of the image's health check, asked beside a proxy that leads nowhere."""
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    python, *arguments = json.loads(found[1])
    assert python == "python"
    environ = {"ZAPWATCH_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
    code, _, _ = await run(sys.executable, *arguments, environ=environ)
    return code


@asynccontextmanager
async def answering(app: ASGIApp) -> AsyncIterator[int]:
    """Yield the port on loopback where the app answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        task = asyncio.create_task(server._serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@dataclass(frozen=True)
class Wheel:
    """A wheel, and the names of the files that it was made of."""

    path: Path
    sources: frozenset[str]

    def names(self) -> list[str]:
        """Return the names of the files in it."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.namelist()

    def extract(self, folder: Path) -> None:
        """Unpack it into a folder, as pip does."""
        with zipfile.ZipFile(self.path) as archive:
            archive.extractall(folder)


@pytest.fixture(scope="module")
async def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel that the builder makes of what is copied there."""
    folder = tmp_path_factory.mktemp("builder")
    sources = frozenset(context())
    for name in sources:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    code, _, err = await run(sys.executable, "-m", "pip", "wheel", *options, str(folder / "source"))
    assert code == 0, err
    return Wheel(next(folder.glob("zapwatch-*.whl")), sources)


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    sources = copied()

    assert set(sources) >= ROOMS | {"pyproject.toml", "requirements.lock"}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    assert not is_ignored("db/queries/ingest/apply.sql")


@pytest.mark.parametrize(
    "path",
    [".env", ".zapwatch/secret_keys", ".git/config", ".venv/pyvenv.cfg", "tests/conftest.py", "compose.yaml"],
)
def test_secrets_data_and_history_do_not_reach_the_builder(path: str) -> None:
    assert is_ignored(path)


def test_compiled_files_of_this_machine_do_not_reach_the_builder() -> None:
    assert is_ignored("receiver/api/__pycache__/body.cpython-311.pyc")


async def test_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel: Wheel) -> None:
    held = {name for name in wheel.names() if ".dist-info/" not in name}

    assert held == {name for name in wheel.sources if name.split("/")[0] in ROOMS}


async def test_installed_wheel_migrates_a_database(wheel: Wheel, empty_dsn: str, tmp_path: Path) -> None:
    wheel.extract(tmp_path)
    script = "import db, sys; from receiver.__main__ import main; sys.stderr.write(db.__file__); main()"
    environ = {
        "PYTHONPATH": str(tmp_path),
        "ZAPWATCH_DATABASE_URL": empty_dsn,
        "ZAPWATCH_SECRET_KEYS": "A" * 43,
    }

    code, out, err = await run(sys.executable, "-c", script, "migrate", environ=environ, cwd=tmp_path)

    migrations = {Path(name).name for name in wheel.sources if name.startswith("db/migrations/")}
    assert err == str(tmp_path / "db/__init__.py")
    assert code == 0
    assert out.split() == sorted(migrations)


async def test_wheel_installs_the_command_that_the_image_starts(wheel: Wheel, tmp_path: Path) -> None:
    wheel.extract(tmp_path)

    entries = next(tmp_path.glob("*.dist-info/entry_points.txt")).read_text()

    assert 'ENTRYPOINT ["zapwatch"]' in DOCKERFILE
    assert "zapwatch = receiver.__main__:main" in entries


async def test_health_check_passes_while_the_service_answers_and_fails_afterwards(dsn: str) -> None:
    async with zapwatch(dsn) as z, answering(http_app(z.app)) as port:
        alive = await health(port)
    ended = await health(port)

    assert alive == 0
    assert ended == 1


async def test_health_check_fails_when_the_service_answers_that_it_is_not_well() -> None:
    async def unwell(_request: Request) -> Response:
        return Response(status_code=503)

    async with answering(Starlette(routes=[Route("/healthz", unwell)])) as port:
        assert await health(port) == 1


def test_image_and_health_check_know_the_default_port() -> None:
    assert f"os.environ.get('ZAPWATCH_PORT') or {Settings().port})" in DOCKERFILE
    assert f"EXPOSE {Settings().port}\n" in DOCKERFILE
    assert f":{Settings().port}" in compose_service("zapwatch")


def test_image_does_not_run_as_root_and_keeps_data_in_its_volume() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    user = re.search(r"^USER (\d+):(\d+)$", last_stage, re.MULTILINE)
    volume = re.search(r"^VOLUME (\S+)$", last_stage, re.MULTILINE)

    assert user is not None
    assert f"--uid {user[1]} --gid {user[2]}" in last_stage
    assert int(user[1]) > 0
    assert volume is not None
    assert f"ZAPWATCH_DATA_DIR={volume[1]}\n" in last_stage


@pytest.mark.parametrize(
    "text", [DOCKERFILE, COMPOSE, EXAMPLE], ids=["Dockerfile", "compose", ".env.example"]
)
def test_only_settings_that_exist_are_set(text: str) -> None:
    known = {variable(name) + suffix for name in DECLARED for suffix in ("", FILE_SUFFIX)}

    named = set(re.findall(r"\bZAPWATCH_\w+", text))

    assert named
    assert named <= known


@pytest.mark.parametrize("name", ["ZAPWATCH_SECRET_KEYS", "DATABASE_PASSWORD"])
def test_secrets_have_no_default_and_are_asked_for(name: str) -> None:
    uses = re.findall(rf"\$\{{{name}\b(..)", COMPOSE)

    assert uses
    assert set(uses) == {":?"}
    assert re.search(rf"^{name}=$", EXAMPLE, re.MULTILINE)


def test_port_is_published_on_loopback_and_the_database_not_at_all() -> None:
    published = re.findall(r"^ *ports: (.+)$", COMPOSE, re.MULTILINE)

    assert published == [f'["${{PUBLISH:-127.0.0.1:8080}}:{Settings().port}"]']
    assert "ports" not in compose_service("db")


def test_database_role_is_bound_by_row_level_security() -> None:
    made = re.search(r"create role zapwatch (.+);", COMPOSE)

    assert made is not None
    assert {"nosuperuser", "nobypassrls", "createrole"} <= set(made[1].split())
    assert "POSTGRES_USER:" not in COMPOSE
    assert "postgresql://zapwatch:" in compose_service("zapwatch")


def test_demo_needs_no_setting_and_is_held_as_tightly_as_the_service() -> None:
    shared = COMPOSE.partition("x-zapwatch:")[2].partition("\nservices:")[0]
    wanted = {
        line.strip()
        for line in shared.splitlines()
        if re.match(r"  (init|cap_drop|security_opt|ports):", line)
    }

    asked_for = re.findall(r"\$\{\w+(..)", DEMO)

    assert len(wanted) == 4
    assert wanted <= {line.strip() for line in DEMO.splitlines()}
    assert set(asked_for) <= {":-"}
    assert "env_file" not in DEMO
    assert "command: [demo]\n" in DEMO
    assert "demo" in cli.commands


def test_compose_waits_longer_than_the_service_drains() -> None:
    shared = COMPOSE.partition("\nservices:")[0]
    granted = re.search(r"^  stop_grace_period: (\d+)s$", shared, re.MULTILINE)

    assert granted is not None
    assert int(granted[1]) > DRAIN.total_seconds()
