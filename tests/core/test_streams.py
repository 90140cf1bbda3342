"""Output to a terminal or pipe of any encoding, and to one that is closed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vision_mtl.cli.command import main
from vision_mtl.config.yaml_files import load_yaml
from vision_mtl.core.console import Console
from vision_mtl.core.streams import BROKEN_PIPE, LastingStream, write

ROOT = Path(__file__).parents[2]
NAME = "dögs \udce9 \x1b[2J\u202e"


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")


def written(found: io.TextIOWrapper) -> bytes:
    return found.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_messages_are_printed_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    for mode in ("plain", "json"):
        console = Console.of(mode)
        for say in (console.say, console.warn, console.show):
            say(NAME)
        console.progress(0.5, NAME)
        console.error(NAME, 2)
        console.result({"class": NAME})
    text = written(err).decode(encoding)
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[2J" in text
    assert json.loads(written(out).decode(encoding).splitlines()[-1])["class"] == NAME


def test_a_closed_stream_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = stream("utf-8")
    closed.close()
    assert not write(closed, "x") and not write(None, "x")
    monkeypatch.setattr("sys.stderr", closed)
    Console().say("x")
    assert not Console().has_bar
    monkeypatch.setattr("sys.stderr", None)
    Console().say("x")
    assert not Console().has_bar


def test_a_pipe_without_a_reader_is_silent_afterwards() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="ascii") as pipe:
        assert not write(pipe, "x")
        assert write(pipe, "x")  # dropped: the descriptor leads nowhere now
        assert LastingStream(pipe).write("ö") == 1


def command(words: list[str], shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    line = " ".join([sys.executable, "train.py", *words, shell])
    found = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, env=found, check=False)


def test_help_into_a_pipe_that_is_closed_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        line = [sys.executable, "train.py", "--help"]
        ended = subprocess.run(line, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert ended.returncode == BROKEN_PIPE and ended.stderr == b""


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_closed_streams_and_an_ascii_locale_are_no_error() -> None:
    assert command(["--help"], ">&- <&-", **ASCII).returncode == 0


@pytest.mark.slow  # it imports PyTorch
def test_an_error_is_no_traceback_without_a_stream_for_it() -> None:
    ended = command(["--stage", "größe"], "2>&-", **ASCII)
    assert ended.returncode == 2 and ended.stdout == b""


def test_a_config_is_printed_in_ascii_if_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    out = stream("ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["--stage", "data", "--tasks.x.source", "folder/größe", "--print_config"]) == 0
    assert load_yaml(written(out).decode("ascii"))["tasks"]["x"]["source"] == "folder/größe"
