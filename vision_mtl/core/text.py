"""Text of any content made safe: names of files and classes may hold bytes that are not UTF-8, line breaks, controls.

`valid_text` is applied where names enter (`data.assemble`, `inference.image_files`), `visible` and `one_line` where
text is shown, `file_stem` where a name becomes a file's name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping

MAX_STEM = 100  # bytes of a file's name that is made from another name; most file systems take 255 with all suffixes
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]|^[. ]|[. ]$')  # on Linux, macOS or Windows
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices of Windows
HIDDEN = (  # characters that move a terminal's cursor, break lines, or show text in another order
    *range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF,
)  # fmt: skip
LINE_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in HIDDEN}
ESCAPES = {code: text for code, text in LINE_ESCAPES.items() if code != 0x0A}
DRAWN = {"─": "-", "━": "-", "…": "...", "■": "#"}  # drawing characters of tables, for encodings without them


def valid_text(text: str) -> str:
    """Return the text with bytes that are not UTF-8 as escapes: every file, hash and database can hold it.

    Python reads such bytes of a file's name as lone surrogates. The result does not depend on the locale.

    >>> valid_text("caf\\udce9.png")
    'caf\\\\xe9.png'
    """
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def native_name(text: str) -> str:
    """Return the name of a file that `valid_text` shows as `text`, also where the system's encoding lacks characters.

    >>> native_name("caf\\\\xe9.png") == os.fsdecode(b"caf\\xe9.png")
    True
    """
    data = text.encode("utf-8", "surrogateescape")
    return os.fsdecode(re.sub(rb"\\x([89a-f][0-9a-f])", lambda match: bytes.fromhex(match[1].decode()), data))


def visible(text: str) -> str:
    """Return the text with control characters, except line feeds, and bytes that are not UTF-8 as escapes."""
    return valid_text(text).translate(ESCAPES)


def one_line(text: str) -> str:
    """Return the text on one line that is not blank: as `visible`, with line feeds as escapes, blank text in quotes."""
    line = valid_text(text).translate(LINE_ESCAPES)
    return line if line.strip() else f"'{line}'"


def short_sources(sources: Iterable[str], tasks: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the name to show for each source: its only task's, else the end of its path: two parts, or more to differ.

    `tasks` maps tasks to their sources. Where short names would be equal, all sources keep their own.

    >>> short_sources(["folder//home/me/pets/images", "bundled/digits"])
    {'folder//home/me/pets/images': 'pets/images', 'bundled/digits': 'bundled/digits'}
    """
    parts = {source: [part for part in source.split("/") if part] for source in sources}
    shown = {}
    for source, own in parts.items():
        others = [found for other, found in parts.items() if other != source]
        lengths = (n for n in range(2, len(own) + 1) if all(found[-n:] != own[-n:] for found in others))
        named = [task for task, of in (tasks or {}).items() if valid_text(of) == source]
        length = next(lengths, None)
        shown[source] = named[0] if len(named) == 1 else "/".join(own[-length:]) if length else source
    return shown if len(set(shown.values())) == len(shown) else {source: source for source in parts}


def encodable(text: str, encoding: str | None) -> str:
    """Return the text with what `encoding` cannot hold as escapes, or as simpler drawing characters."""
    try:
        text.encode(encoding or "utf-8")
        return text
    except UnicodeEncodeError:
        plain = "".join(DRAWN.get(character, character) for character in text)
        return plain.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    except LookupError:  # an encoding that Python does not know
        return text.encode("ascii", "backslashreplace").decode("ascii")


def file_stem(name: str) -> str:
    """Return the name of a file or folder for a name of any content: `name` itself if file systems take it.

    Another name gets a hash, so that two names have two files, and none leaves its folder.

    >>> file_stem("age"), file_stem("../age"), file_stem("CON")
    ('age', 'age-147f76ce', 'CON-c1e04579')
    """
    if name and not UNSAFE.search(name) and not RESERVED.fullmatch(name) and len(name.encode()) <= MAX_STEM:
        return name
    digest = hashlib.blake2b(valid_text(name).encode(), digest_size=4).hexdigest()
    readable = re.sub(r"[^\w.-]+", "_", valid_text(name))[: MAX_STEM // 5].strip("._ -")
    return f"{readable}-{digest}".lstrip("-")
