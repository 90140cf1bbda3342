"""What an arm costs, and what it starts from, as its runs measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_mtl.models.weights import weights_text
from vision_mtl.study.plan import Node, Plan
from vision_mtl.study.starts import Finals, ancestors, published_teacher, published_weights

Record = Mapping[str, Any]
UNKNOWN = " (what they were trained on is not recorded)"
COUNTS = ("images_seen", "steps", "forward_rows")


def arm_costs(plan: Plan, finals: Finals, rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row per arm and fraction: what the runs of one seed cost together, as means over the seeds.

    `rows` are those of `record.run_row`. A number that some run does not record, such as one of an older version, is
    None. A teacher's pass serves all seeds, so it counts once in full for each: a user who runs the arm once pays it.
    `other_seconds` are the rest of the wall time: starting, decoding, scoring, figures, and all
    of a probe, which trains no network.
    """
    by_folder = {row["folder"]: row for row in rows}
    chains: dict[tuple[str, float], list[list[Record]]] = {}
    for (arm, fraction, _), keys in finals.items():
        nodes = {node.key: node for node in [*ancestors(plan, keys), *(plan.nodes[key] for key in keys)]}
        chains.setdefault((arm, fraction), []).append([by_folder[node.folder] for node in nodes.values()])
    return [{"arm": arm, "fraction": fraction, **_cost(found)} for (arm, fraction), found in chains.items()]


def arm_starts(plan: Plan, finals: Finals, arm: str, results: Mapping[str, Record]) -> list[str]:
    """Return, in words, the published weights and the teacher that the arm's runs start from, and their training.

    `results` are the runs' by folder. Runs outside the study are named by `init_from` in the arm's options.
    """
    keys = [key for (name, _, _), found in finals.items() if name == arm for key in found]
    nodes = {node.key: node for node in [*ancestors(plan, keys), *(plan.nodes[key] for key in keys)]}
    return list(dict.fromkeys(text for node in nodes.values() for text in _starts(node, results[node.folder])))


def _cost(chains: Sequence[Sequence[Record]]) -> dict[str, Any]:
    trained = [[row for row in chain if row["images_seen"]] for chain in chains]  # a probe trains no network
    found: dict[str, Any] = {key: _mean([[row.get(key) for row in chain] for chain in trained]) for key in COUNTS}
    training = _mean([[row["seconds"] for row in chain] for chain in trained]) or 0.0
    teacher = max((row.get("teacher_seconds") or 0.0 for chain in chains for row in chain), default=0.0)
    own = [[0.0 if row.get("teacher_cached") else row.get("teacher_seconds") or 0.0 for row in c] for c in chains]
    wall = _mean([[row["wall_seconds"] for row in chain] for chain in chains]) or 0.0
    sizes = [row["backbone_parameters"] for chain in chains for row in chain if row.get("backbone_parameters")]
    return {
        **found,
        "training_seconds": round(training, 1),
        "teacher_seconds": round(teacher, 1),
        "other_seconds": round(max(wall - training - (_mean(own) or 0.0), 0.0), 1),
        "backbone_parameters": sizes[-1] if sizes else None,
    }


def _mean(chains: Sequence[Sequence[float | None]]) -> float | None:
    """Return the mean over seeds of the sum over a seed's runs; None if a run lacks the number."""
    sums = [sum(value for value in chain if value is not None) for chain in chains]
    return None if any(value is None for chain in chains for value in chain) else float(np.mean(sums))


def _starts(node: Node, result: Record) -> list[str]:
    found = []
    if weights := published_weights(node):
        about = result.get("weights")
        found.append(f"weights of {weights}" + (f" from {weights_text(about)}" if about else UNKNOWN))
    if teacher := published_teacher(node):
        about = result.get("teacher") or {}
        trained_on = about.get("trained_on")
        found.append(
            f"teacher {about.get('name') or teacher}" + (f"; trained on: {trained_on}" if trained_on else UNKNOWN)
        )
    return found
