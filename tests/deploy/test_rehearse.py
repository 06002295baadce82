"""What the rehearsal makes of a Dockerfile, without performing it: that takes minutes, and `make rehearse`."""

import sys
from pathlib import Path

import pytest

from deploy.rehearse.build import Image, release_of, user_of
from deploy.rehearse.container import Running
from deploy.rehearse.context import Context, copy_tree
from deploy.rehearse.dockerfile import Step, command, key_values, options_and_rest, read_stages, words
from engine.errors import ConfigError, EngineError

DOCKERFILE = """\
# A comment
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS build
ENV HOME_OF=/opt/app
RUN one \\
    # between
    && two
FROM build
COPY --from=build --chown=1:2 "/a b" c/
CMD ["run", "it"]
"""


def test_stages_and_steps(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile.odd"
    path.write_text(DOCKERFILE)
    build, last = read_stages(path, {})
    assert (build.name, build.image) == ("build", "python:3.11-slim-bookworm")
    assert (last.name, last.image) == ("1", "build")
    assert [step.instruction for step in build.steps] == ["ENV", "RUN"]
    assert build.steps[1].value.split() == ["one", "&&", "two"]
    assert last.steps[1] == Step("CMD", '["run", "it"]')
    [other, _] = read_stages(path, {"BASE": "python:3.13-slim-trixie"})
    assert other.image == "python:3.13-slim-trixie"


def test_words_options_and_variables() -> None:
    options, rest = options_and_rest('--from=build --chown=1:2 "/a b" ${WHERE}/c')
    assert options == {"from": "build", "chown": "1:2"}
    assert words(rest, {"WHERE": "/srv"}) == ["/a b", "/srv/c"]
    assert key_values('A=1 B="two words" PATH=/x:${PATH}', {"PATH": "/bin"}) == {
        "A": "1", "B": "two words", "PATH": "/x:/bin",
    }  # fmt: skip
    assert command('["a", "b c"]') == ["a", "b c"]
    assert command("a b | c") == ["/bin/sh", "-c", "a b | c"]


@pytest.mark.parametrize("content", [None, "", "ARG A=1\n"])
def test_a_file_without_a_stage_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="Dockerfile: no"):
        read_stages(path, {})


def test_only_images_that_debian_can_stand_for() -> None:
    assert release_of("python:3.11-slim-bookworm@sha256:" + "0" * 64) == "bookworm"
    for image in ("python:3.12-slim-bookworm", "alpine:3", "nvidia/cuda:13.0-base"):
        with pytest.raises(ConfigError, match="can stand in for"):
            release_of(image)


def test_what_is_ignored_is_not_copied(tmp_path: Path) -> None:
    for name in ("engine/a.py", "engine/__pycache__/a.pyc", "docs/a.md", "LICENSE", "var/engine/b.py"):
        file = tmp_path / "context" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "context/.dockerignore").write_text("# all\n*\n!engine\n!LICENSE\n**/__pycache__\n")
    context, root = Context(tmp_path / "context"), tmp_path / "root"
    context.copy("engine", root / "src/engine")
    context.copy("LICENSE", root / "src/LICENSE")
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "src/LICENSE",
        "src/engine/a.py",
    ]
    for ignored in ("docs", "var", "docs/a.md"):
        with pytest.raises(FileNotFoundError):
            context.copy(ignored, root / "x")


def test_copies_of_a_stage_keep_links(tmp_path: Path) -> None:
    source, owner = tmp_path / "from", (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    (source / "bin").mkdir(parents=True)
    (source / "bin/python").symlink_to("/usr/bin/python3")
    copy_tree(source, tmp_path / "to", owner)
    assert (tmp_path / "to/bin/python").readlink() == Path("/usr/bin/python3")


def test_users_by_number_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nengine:x:10001:10002::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nengine:x:10002:\nothers:x:7:\n")
    assert user_of(tmp_path, "10001:5") == (10001, 5)
    assert user_of(tmp_path, "10001") == (10001, 10002)
    assert user_of(tmp_path, "engine") == (10001, 10002)
    assert user_of(tmp_path, "engine:others") == (10001, 7)
    with pytest.raises(ConfigError, match="nobody"):
        user_of(tmp_path, "nobody")


WAITER = """\
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
signal.pause()
"""


def test_a_process_is_run_asked_and_told_to_leave(tmp_path: Path) -> None:
    image = Image(tmp_path, entrypoint=[sys.executable, "-c"], health=["sh", "-c", 'test "$WANTED" = yes'])
    with Running(image, tmp_path / "log", [WAITER], {"WANTED": "yes"}) as process:
        assert process.healthy()
        # What it is asked by has the environment that was given, and nothing else.
        assert process.run(["env"]).stdout.splitlines() == [f"PATH={image.environment['PATH']}", "WANTED=yes"]
        while "up" not in process.said:
            assert not process.ended()
        assert process.stop(30) == 7
    with Running(image, tmp_path / "log", [WAITER]) as process:
        assert not process.healthy()
        with pytest.raises(EngineError, match=r"still running after 0\.01 s"):
            process.wait(0.01)
    assert process.ended()
