"""`engine rules check`: what a user sees before a server does."""

import sys
from pathlib import Path

import polars as pl
import pytest

from engine.bundle.bundle import open_bundle
from engine.cli.main import app, run
from tests.conftest import Trained

EXAMPLE = Path(__file__).parents[3] / "examples" / "rules.yaml"


def written(path: Path, *rules: str) -> Path:
    path.write_text("version: 1\nrules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules))
    return path


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["engine", "rules", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()
    return line


def test_good_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["rules", "check", str(EXAMPLE)], standalone_mode=False)
    shop = written(tmp_path / "r.yaml", "name: r, action: deny, items: {brand: x}, surfaces: shop")
    app(["rules", "check", str(shop), "--surfaces", "home, shop"], standalone_mode=False)
    assert capsys.readouterr().out == "ok: 12 rules\nok: 1 rule\n"


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "r.yaml", "name: r, action: deny, items: {brand: x}, surfaces: shop")
    assert refusal(monkeypatch, capsys, path).startswith(f"engine: {path}:3: rule 'r': no such surface: 'shop'")
    assert "nowhere.yaml: cannot be read" in refusal(monkeypatch, capsys, tmp_path / "nowhere.yaml")
    assert "no bundle" in refusal(monkeypatch, capsys, EXAMPLE, "--bundle", tmp_path)


def test_the_items_of_a_bundle(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = trained.bundles.current()
    items = pl.DataFrame(pl.from_arrow(open_bundle(directory, verify=False).items.table))
    item = items.filter(pl.col("category").is_not_null()).row(0, named=True)
    path = written(
        tmp_path / "r.yaml",
        f"name: p, action: pin, item_id: '{item['item_id']}', position: 1",
        "name: nobody, action: deny, items: {brand: nobody at all}",
    )
    for bundle in (directory, trained.bundles.directory):
        app(["rules", "check", str(path), "--bundle", str(bundle)], standalone_mode=False)
        output = capsys.readouterr()
        assert output.out == "ok: 2 rules\n"
        assert output.err == f"{path}: line 4: rule 'nobody': no item of the catalogue matches\n"
    written(
        path,
        f"name: p, action: pin, item_id: '{item['item_id']}', position: 1",
        f"name: d, action: deny, items: {{category: '{item['category']}'}}",
    )
    line = refusal(monkeypatch, capsys, path, "--bundle", directory)
    assert line == f"engine: {path}:3: rule 'p': the pinned item '{item['item_id']}' is denied by the rule 'd'"
