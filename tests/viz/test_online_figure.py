"""The figure of a bandit over damages shows its data."""

import pytest

from vision_mtl.viz.online import LOWEST, online_figure


def row(damage: str, seen: int, share: float, skill: float) -> dict:
    return {"pretext": damage.partition("/")[0], "damage": damage, "images_seen": seen, "share": share, "skill": skill}


def test_shares_are_above_skills_with_the_mixture_dashed() -> None:
    rows = [row("a/x", 0, 0.5, 0.0), row("a/y", 0, 0.2, 0.0), row("b/z", 0, 0.3, 0.0)]
    rows += [row("a/x", 64, 0.1, 0.4), row("a/y", 64, 0.6, -7.0), row("b/z", 64, 0.3, 0.1)]
    figure = online_figure(rows, {("a", "a/x"): 0.35, ("a", "a/y"): 0.35, ("b", "b/z"): 0.3})
    shares, skills, others, _ = figure.axes
    x, y, dashed = shares.lines
    assert list(x.get_ydata()) == pytest.approx([50, 10]) and list(y.get_xdata()) == [0, 64]
    assert x.get_drawstyle() == "steps-post"  # a share is valid until the next update
    assert dashed.get_ydata()[0] == pytest.approx(35) and len(shares.lines) == 3
    assert list(skills.lines[1].get_ydata()) == [0.0, -7.0] and skills.get_ylim()[0] == LOWEST
    assert others.get_legend().get_title().get_text() == "b"
