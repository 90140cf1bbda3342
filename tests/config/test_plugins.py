"""A component in a user's own file registers by name, once, and only if the user names the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from vision_mtl.cli.command import main
from vision_mtl.config import plugins
from vision_mtl.config.resolve import resolve
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import CONFIG
from vision_mtl.pretext.contract import PRETEXTS

Capture = pytest.CaptureFixture[str]
PLUGIN = '''
"""Blur that is registered by a user."""
from dataclasses import dataclass
from pathlib import Path
from vision_mtl.pretext.blur import Blur
from vision_mtl.pretext.contract import PRETEXTS

with Path(__file__).with_suffix(".log").open("a") as log:
    log.write("imported\\n")

@PRETEXTS.register("my_blur")
@dataclass(frozen=True, kw_only=True)
class MyBlur(Blur):
    """A blur of my own."""

    extra: int = 5
    """Pixels of nothing."""
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with pretext `my_blur`; what it registers is removed after the test."""
    monkeypatch.setattr(plugins, "_loaded", [])
    before = set(sys.modules)
    file = tmp_path / "my_pretexts.py"
    file.write_text(PLUGIN)
    yield file
    PRETEXTS._found.pop("my_blur", None)
    for name in set(sys.modules) - before:
        if name.startswith("vision_mtl_plugin_"):
            del sys.modules[name]


def test_a_plugin_registers_a_pretext_by_name(plugin: Path, capsys: Capture) -> None:
    words = ["--stage", "pretrain", "--plugins", str(plugin)]
    assert main([*words, "--pretexts.my_blur.extra", "7", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["pretexts"]["my_blur"]["extra"] == 7 and "plugins" not in printed
    assert main([*words, "--help"]) == 0
    assert "my_blur" in capsys.readouterr().out


def test_a_plugin_is_loaded_once(plugin: Path) -> None:
    for path in (plugin, str(plugin), plugin.parent / "." / plugin.name):
        plugins.load_plugins([path])
    assert plugin.with_suffix(".log").read_text() == "imported\n"
    assert plugins.loaded_plugins() == [str(plugin.resolve())]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def (", "plugin '{file}' cannot be imported: SyntaxError"),
        ("1 / 0", "plugin '{file}' cannot be imported: ZeroDivisionError: division by zero"),
        ("import no_such_package", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)", "plugin '{file}' cannot be imported: SystemExit: 3"),
        (PLUGIN.replace('"my_blur"', '"blur"'), "UserError: pretext 'blur' is registered already"),
        (None, "--plugins takes existing Python files; found '{file}'"),
    ],
)
def test_a_broken_or_missing_file_is_one_clear_error(
    plugin: Path, content: str | None, message: str, capsys: Capture
) -> None:
    if content is None:
        plugin.unlink()
    else:
        plugin.write_text(content)
    assert main(["--stage", "pretrain", "--plugins", str(plugin), "--print_config"]) == 2
    printed = capsys.readouterr()
    assert message.format(file=plugin) in printed.err and printed.err.count("\n") == 1
    assert printed.out == "" and plugins.loaded_plugins() == []


def test_a_file_of_another_kind_and_a_second_of_the_same_name_are_refused(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"--plugins takes existing Python files; found '.*notes\.txt'"):
        plugins.load_plugins([tmp_path / "notes.txt"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / plugin.name).write_text("")
    with pytest.raises(UserError, match=r"two plugins are called 'my_pretexts\.py': rename one"):
        plugins.load_plugins([plugin, tmp_path / "other" / plugin.name])


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_file_that_mentions_its_pretext_does_not_import_it(plugin: Path, tmp_path: Path, stage: str) -> None:
    (tmp_path / CONFIG).write_text(yaml.safe_dump({"pretexts": {"my_blur": {"sigma": 1.0}}}))
    with pytest.raises(UserError, match=r"unknown pretext 'my_blur'.* --plugins FILE"):
        resolve(stage, yaml.safe_load((tmp_path / CONFIG).read_text()), {})
    assert not plugin.with_suffix(".log").exists()
    plugins.load_plugins([plugin])
    resolve(stage, yaml.safe_load((tmp_path / CONFIG).read_text()), {})


@pytest.mark.slow
def test_a_run_folder_that_mentions_its_pretext_does_not_import_it(
    plugin: Path, train, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert train(folder, "--plugins", str(plugin), "--pretexts.my_blur.weight", "1", "--optim.steps", "1") == 0
    assert "my_blur" in (folder / CONFIG).read_text()
    monkeypatch.setattr(plugins, "_loaded", [])
    PRETEXTS._found.pop("my_blur")
    del sys.modules["vision_mtl_plugin_my_pretexts"]
    monkeypatch.chdir(folder.parent)  # where the plugin is
    for words in (["pretrain", "--config", str(folder / CONFIG)], ["pretrain", "--init_from", str(folder)]):
        capsys.readouterr()
        assert main(["--stage", *words, "--run_dir", str(folder), "--print_config"]) == 2
        error = capsys.readouterr().err
        assert "unknown pretext 'my_blur'" in error and "--plugins FILE" in error
    assert plugin.with_suffix(".log").read_text() == "imported\n"
