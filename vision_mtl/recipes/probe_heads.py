"""The probe as a model: the frozen backbone with a linear head for each task, which can answer and be exported.

A head is a linear probe like the others, fitted to what a head of this project reads: the last map, averaged and
normalised. Starting `finetune` from it is linear probing before fine-tuning (Kumar et al., "Fine-tuning can distort
pretrained features and underperform out-of-distribution", 2022, https://arxiv.org/abs/2202.10054).
"""
# N rows of features, D feature width, K classes or labels

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.calibration import fit_temperature
from vision_mtl.evaluation.linear_probe import LinearProbe, feature_statistics, standardise
from vision_mtl.evaluation.probing import ProbePrediction, ProbeTask, fit_probe
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.build import describe_model
from vision_mtl.training.checkpoint import BEST, save_weights
from vision_mtl.training.supervised import task_head_specs

DECODER = "linear"  # nothing reads it: classes and numbers need none
SURELY = 1e4  # logit of a class that no training image has, and of a label that every image has


def fit_heads(
    run: Run, config: RunConfig, pool: Pool, backbone: Backbone, tasks: Mapping[str, ProbeTask], features: Tensor
) -> dict[str, ProbePrediction]:
    """Fit a head a task on all training labels, write `checkpoints/best.safetensors`; each head's answer for the test.

    `backbone` is the one that gave `features` (N, D), its last map averaged; rows are those of `tasks`.
    """
    normalised = F.layer_norm(features.float(), features.shape[1:]).numpy()
    train = np.zeros(len(pool), bool)
    train[pool.indices("train").numpy()] = True
    answers = task_head_specs({name: pool.targets[name] for name in tasks}, train)
    maps = MapSpec(backbone.channels, backbone.map_sizes, backbone.image_size)
    model = SharedModel(backbone, DECODERS.get(DECODER)().build(maps), {}, answers)
    found = {}
    for name, task in tasks.items():
        x = standardise(normalised, task.train)
        probe = fit_probe(x, task, task.train)
        _put_into(model.task_head(name), probe, *feature_statistics(normalised, task.train))
        if label_kind(task.kind).has_classes:
            logits = torch.from_numpy(_logits(probe, x[task.val]))
            truth = torch.from_numpy(task.values[task.val])
            model.task_head(name).temperature.fill_(fit_temperature(label_kind(task.kind), logits, truth))
        chosen = {"C": probe.strength, "val_score": probe.val_score, "converged": probe.converged}
        found[name] = ProbePrediction(probe.predict(x[task.test]), chosen)
    if run.is_main:
        described = describe_model(replace(config, decoder=DECODERS.get(DECODER)()), model, pool)
        save_weights(run.checkpoints / BEST, described | {"step": 0}, model.state_dict())
    return found


def _logits(probe: LinearProbe, x: np.ndarray) -> np.ndarray:
    return x @ probe.weight + np.clip(probe.bias, -SURELY, SURELY)


def _put_into(head: nn.Module, probe: LinearProbe, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Make `head` give the probe's scores: what standardised the features is folded into weight and bias."""
    weight = probe.weight / deviation[:, None]  # (D, K)
    bias = np.clip(probe.bias, -SURELY, SURELY) - mean @ weight
    if not label_kind(probe.kind).has_classes:  # a head of numbers works in units of its labels
        weight, bias = weight / float(head.scale), (bias - float(head.offset)) / float(head.scale)
    with torch.no_grad():
        head.project.weight.copy_(torch.from_numpy(weight.T))
        head.project.bias.copy_(torch.from_numpy(bias))
