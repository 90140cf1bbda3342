"""Pages of the site that are not files in docs/: README.md, the benchmarks, and an API page for each package."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"README.md": "index.md", "benchmarks/results/README.md": "benchmarks.md"}  # file -> its page
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


class BareClassVars(griffe.Extension):
    """Keeps `name: ClassVar = value` out of the constructor's signature: griffe knows `ClassVar[...]` only."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Label the attribute as one of the class."""
        if str(attr.annotation) == "ClassVar":
            attr.labels.discard("instance-attribute")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages to the files of the site."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    package = ROOT / "vision_mtl"
    for folder in sorted(folder for folder in package.iterdir() if (folder / "__init__.py").is_file()):
        files.append(File.generated(config, f"reference/{folder.name}.md", content=_reference(folder)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links into links within the site; a link to a file outside docs/ becomes its text."""
    place = {page_: source for source, page_ in ELSEWHERE.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    here = posixpath.dirname(page.file.src_uri)

    def within_site(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[2]))
        found = ELSEWHERE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if found is None or (ROOT / target).is_dir() or found == "slurm.sbatch":
            return match[1]
        return f"[{match[1]}]({posixpath.relpath(found, here or '.')}{match[3] or ''})"

    return re.sub(r"\]\(docs/images/", "](images/", LINK.sub(within_site, markdown))


def _reference(folder: Path) -> str:
    """The API page of a package: its modules, one after another."""
    modules = sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in folder.rglob("*.py"))
    shown = "options:\n      show_root_heading: false\n      show_root_toc_entry: false"
    named = [module for module in modules if not module.endswith("__init__")]
    parts = [f"## {module}\n\n::: {module}\n    {shown}" for module in named]
    return f"# {folder.name}\n\n" + "\n\n".join(parts) + "\n"
