"""A result as a person reads it at the end of a run."""

from __future__ import annotations

from typing import Any


def result_text(result: dict[str, Any]) -> str:
    """The scores of `result.json` as lines of text."""
    metrics = result.get("metrics", {})
    lines = []
    if skill := metrics.get("skill_by_source"):
        lines.append("skill on held-out images (0: classic repair without learning, 1: perfect; 95 % interval):")
        before = {**metrics.get("skill_untrained_by_source", {}), "all": metrics.get("skill_untrained", {})}
        for source, scores in {**skill, "all": metrics.get("skill", {})}.items():
            lines += [
                f"  {source:<18}{name:<14}{_score(score)}{_untrained(before.get(source, {}).get(name))}"
                for name, score in scores.items()
            ]
    if online := metrics.get("online"):
        lines.append("kNN on validation images, frozen features (chance in brackets):")
        lines += [f"  {task:<18}{found['knn']:.3f}  ({found['chance']:.3f})" for task, found in online.items()]
    if result.get("images_seen"):
        lines.append(
            f"{result['images_seen']:,} images in {result['seconds']:.0f} s of training, "
            f"{result['images_per_second']:.0f} a second"
        )
    return "\n".join(lines) or f"status: {result['status']}"


def _score(score: dict[str, Any]) -> str:
    interval = (
        "(one cluster: no interval)" if score["low"] is None else f"({score['low']:+.3f} to {score['high']:+.3f})"
    )
    return f"{score['value']:+.3f}  {interval}  n = {score['n']}, {score['num_clusters']} clusters"


def _untrained(score: dict[str, Any] | None) -> str:
    return "" if score is None else f"; untrained {score['value']:+.3f}"
