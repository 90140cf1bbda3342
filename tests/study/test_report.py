"""The page loads nothing and shows all results; the Markdown report and the tables agree with it."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from report_records import study, task

from vision_mtl.study.number_format import MINUS
from vision_mtl.study.report import write_report

LOADING = {"src", "srcset", "poster", "background", "action", "formaction", "xlink:href", "manifest", "ping"}
VOID = {"meta", "img", "br", "hr", "link", "input"}
WICKED = "<b>|`*_[x](http://y.z)]&amp;\"'$1$"


class Page(HTMLParser):
    """Text, tags and attributes, and whether each tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.words, self.open, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def written(record: dict, folder: Path) -> tuple[Page, str]:
    write_report(record, folder)
    return Page((folder / "report.html").read_text("utf-8")), (folder / "report.md").read_text("utf-8")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path, picture: Path) -> None:
    record = study({"a": 0.0, "b": 0.1}) | {"pictures": [{"title": "t", "caption": "c", "path": str(picture)}]}
    page, _ = written(record | {"question": "see https://example.org/x.css"}, tmp_path / "report")
    loaded = [value for _, name, value in page.attributes if name in LOADING]
    assert len(loaded) == 3 and all(value.startswith("data:image/") for value in loaded)
    assert all(value.startswith("#") for _, name, value in page.attributes if name == "href")
    assert not {"script", "link", "iframe", "object", "embed", "base", "video", "audio", "source"} & set(page.tags)
    styles = "".join(page.styles) + "".join(value for _, name, value in page.attributes if name == "style")
    assert styles and "url(" not in styles and "@import" not in styles and "@font-face" not in styles
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    assert len([1 for tag, name, _ in page.attributes if (tag, name) == ("img", "alt")]) == page.tags.count("img") == 3


def test_each_verdict_is_in_both_pages_with_its_numbers(tmp_path: Path) -> None:
    record = study({"base": 0.0, "better": 0.1, "worse": -0.1, "same": 0.0}, fractions=(0.1,))
    page, text = written(record, tmp_path)
    found = {one["arm"]: one for one in record["comparisons"]}
    assert {arm: one["verdict"] for arm, one in found.items()} == {
        **{"better": "helps", "worse": "hurts", "same": "undecided"}
    }
    for arm, relation in (("better", "above"), ("worse", "below")):
        numbers = [f"{100 * found[arm]['difference'][key]:.1f}" for key in ("value", "low", "high")]
        value, low, high = (number.replace("-", MINUS) for number in numbers)
        sign = "+" if arm == "better" else ""
        told = f"{arm} is {sign}{value} points [{low}, {high}] {relation} base: {found[arm]['verdict']}"
        assert told in page.text and f"- 10 % labels: {told}\n" in text
    assert "same against base: undecided, identical in all 6 seeds" in page.text
    assert "identical in all 6 seeds" in text
    assert (
        page.text.index("better is +") < page.text.index("How to read this") < page.text.index("Comparisons: each arm")
    )
    for said in ("Of 3 comparisons, 1 helps, 1 hurts and 1 is undecided.", "14 of 44", "3 h 26 min", "1,234,567"):
        assert said in page.text and said in text
    for said in ("optim.learning_rate = 0.003", "a warning", "a note", "folder/x", "slow disk", "2 points", "2.13.0"):
        assert said in page.text and said in text


@pytest.mark.slow
def test_the_same_record_gives_the_same_bytes(tmp_path: Path, picture: Path) -> None:
    record = study({"a": 0.0, "b": 0.1}) | {"pictures": [{"title": "t", "caption": "", "path": str(picture)}]}
    for name in ("one", "two"):
        write_report(record, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert {str(file) for file in files} == {
        *("report.html", "report.md", "tables/comparisons.csv", "tables/scores.csv", "tables/runs.csv"),
        *(f"figures/{name}-1-pets.{kind}" for name in ("scores", "differences") for kind in ("png", "svg")),
        "figures/picture-1-t.jpg",
    }
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.slow
def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    record = study({WICKED: 0.0, "b": 0.1}, tasks={WICKED: task()}) | {
        **{"name": WICKED, "question": f"# {WICKED}", "warnings": [WICKED, "- [x] </td>"]},
        "config": f"a: </code></pre>{WICKED}\n```\n<script>alert()</script>\n",
    }
    page, text = written(record, tmp_path)
    plain, _ = written(study({"a": 0.0, "b": 0.1}) | {"warnings": ["one", "two"]}, tmp_path / "plain")
    assert page.tags == plain.tags
    assert page.text.count(WICKED) > 10 and "<script>alert()</script>" in page.text
    rendered = Page(MarkdownIt("commonmark").enable("table").render(text))
    assert "b" not in rendered.tags and "script" not in rendered.tags
    assert not [value for _, name, value in rendered.attributes if name == "href" and not value.startswith("tables/")]
    assert rendered.text.count(WICKED) > 10 and "- [x] </td>" in rendered.text
    assert "<script>alert()</script>" in rendered.text and rendered.tags.count("h1") == 1
    sources = [value for _, name, value in rendered.attributes if name == "src"]
    assert len(sources) == 2 and all((tmp_path / source).is_file() for source in sources)
    alts = [[value for _, name, value in found.attributes if name == "alt"] for found in (page, rendered)]
    assert alts[0] == alts[1] and all(WICKED in alt for alt in alts[1])


def test_markdown_tables_have_a_cell_for_each_column(tmp_path: Path) -> None:
    record = study({"a|b": 0.0, "b\nc": 0.1})
    _, text = written(record, tmp_path)
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    for table in re.findall("<table>.*?</table>", rendered, re.DOTALL):
        counts = {len(re.findall("<t[hd]", row)) for row in re.findall("<tr>.*?</tr>", table, re.DOTALL)}
        assert len(counts) == 1
    assert rendered.count("<table>") == 10 and not re.search(r"(?m)^<p>\|", rendered)


def test_csv_holds_all_digits(tmp_path: Path) -> None:
    record = study({'a, "quoted"\n': 0.0, "b": 0.1})
    write_report(record, tmp_path)
    found = rows(tmp_path / "tables" / "comparisons.csv")
    for row, one in zip(found, record["comparisons"], strict=True):
        assert (
            row["baseline"] == 'a, "quoted"\n' and row["verdict"] == one["verdict"] and row["reason"] == one["reason"]
        )
        assert float(row["difference_low"]) == one["difference"]["low"]
        assert float(row["difference_holm_high"]) == one["difference_holm"]["high"]
        assert float(row["level_holm"]) == one["difference_holm"]["level"] and float(row["std"]) == one["std"]
    scores = rows(tmp_path / "tables" / "scores.csv")
    for row, one in zip(scores, record["scores"], strict=True):
        assert [float(row[f"seed_{seed['seed']}"]) for seed in one["by_seed"]] == [s["value"] for s in one["by_seed"]]
        assert float(row["chance"]) == one["chance"]["value"]
    runs = rows(tmp_path / "tables" / "runs.csv")
    assert [float(row["pets.accuracy"]) for row in runs] == [0.5, 0.51] * 2 and runs[0]["warnings"] == "slow disk"
    assert runs[0]["pets.macro_f1"] == "" and runs[0]["resumes"] == "1"


def test_a_regression_is_in_units_of_the_label_and_chance_may_be_missing(tmp_path: Path) -> None:
    record = study({"a": 0.0, "b": 0.1}, tasks={"age": task("regression", "minus the absolute error")})
    for row in record["scores"]:
        row["chance"] = None
    page, text = written(record, tmp_path)
    assert "units of the label" in page.text and "+ is less error" in page.text
    assert "points" not in page.text and "points" not in text
    assert rows(tmp_path / "tables" / "scores.csv")[0]["chance"] == ""


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_one_arm_has_nothing_to_compare(tmp_path: Path, num_seeds: int) -> None:
    page, text = written(study({"a": 0.0}, num_seeds=num_seeds), tmp_path)
    assert "There is nothing to compare." in page.text and "There is nothing to compare." in text
    assert "Paired differences" not in page.text and page.tags.count("img") == 1


def test_one_seed_leaves_all_undecided(tmp_path: Path) -> None:
    record = study({"a": 0.0, "b": 0.1}, num_seeds=1)
    page, text = written(record, tmp_path)
    for one in record["comparisons"]:
        told = f"b against a: undecided, +{100 * one['difference']['value']:.1f} points; one seed: no interval"
        assert told in page.text and told in text
    assert page.tags.count("img") == 2 and "sign-flip" not in page.text


def test_every_list_may_be_empty(tmp_path: Path) -> None:
    record = study({"a": 0.0})
    for key, value in record.items():
        if isinstance(value, list | dict):
            record[key] = type(value)()
    record["before"] = {"expected_std": None, "rows": []}
    page, text = written(record, tmp_path)
    assert "There are no scores." in page.text and "There are no scores." in text and "None." in page.text
    assert "img" not in page.tags and rows(tmp_path / "tables" / "comparisons.csv") == []


@pytest.mark.slow
def test_pictures_are_reduced_and_a_missing_one_is_named(tmp_path: Path, picture: Path) -> None:
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    named = {
        "noise": picture,
        "clear": tmp_path / "clear.png",
        "broken": tmp_path / "broken.png",
        "gone": "/nowhere.png",
    }
    pictures = [{"title": title, "caption": "", "path": str(path)} for title, path in named.items()]
    page, text = written(study({"a": 0.0}) | {"pictures": pictures}, tmp_path / "report")
    for title in ("broken", "gone"):
        assert f"the picture '{title}' is left out" in page.text and f"the picture '{title}' is left out" in text
    with Image.open(next((tmp_path / "report" / "figures").glob("picture-1-noise.*"))) as reduced:
        assert reduced.size == (900, 675)
    with Image.open(next((tmp_path / "report" / "figures").glob("picture-2-clear.*"))) as clear:
        assert clear.size == (50, 40) and clear.convert("RGB").getpixel((20, 20)) == (255, 255, 255)
    assert (tmp_path / "report" / "report.html").stat().st_size < 600_000


def test_every_run_and_every_arm_is_in_the_tables(tmp_path: Path) -> None:
    record = study({"a": 0.0, "b": 0.1}, fractions=(0.01, 0.1, 1.0), tasks={"pets": task(), "faces": task()})
    record["comparisons"].sort(key=lambda one: -one["fraction"])
    page, _ = written(record, tmp_path)
    assert page.tags.count("h4") == 6 and page.text.index("1 % labels") < page.text.index("all labels b is")
    for run in record["runs"]:
        assert run["folder"] in page.text
    assert page.tags.count("tr") >= len(record["comparisons"]) + len(record["scores"]) + len(record["runs"])
    assert page.text.count("pets: accuracy 51.0") == 2 and page.text.count("0: ") >= len(record["scores"])
