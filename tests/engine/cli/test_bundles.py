"""`engine bundles` on real bundles: bringing one in, going back, and refusing what does not verify."""

import shutil
from pathlib import Path

import pytest

from engine.bundle.store import BundleStore
from engine.cli.main import app
from engine.errors import BundleError
from tests.conftest import Trained


def run(*arguments: str) -> None:
    app(["bundles", *arguments], standalone_mode=False)


def test_a_bundle_is_brought_in_and_left_again(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version, bundles = trained.bundles.current().name, str(tmp_path / "bundles")
    run("list", "--bundles", bundles)
    assert capsys.readouterr().out == ""
    run("add", str(trained.bundles.directory), "--bundles", bundles, "--keep", "2")
    assert capsys.readouterr().out == f"{version} is current in {bundles}\n"
    store = BundleStore(Path(bundles))
    store.point_to(shutil.copytree(store.current(), store.directory / "another").name)
    run("use", version, "--bundles", bundles)
    assert store.current().name == version
    capsys.readouterr()
    run("list", "--bundles", bundles)
    assert sorted(line[:2] for line in capsys.readouterr().out.splitlines()) == ["  ", "* "]


def test_what_does_not_verify_does_not_serve(trained: Trained, tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    run("add", str(trained.bundles.current()), "--bundles", str(tmp_path))
    good = store.current()
    broken = shutil.copytree(good, tmp_path / "broken")
    with (broken / "ranker.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"ranker\.onnx"):
        run("use", "broken", "--bundles", str(tmp_path))
    assert store.current() == good
    with pytest.raises(BundleError, match=r"manifest\.json"):
        run("use", "nowhere", "--bundles", str(tmp_path))
