"""Does every timm architecture train with its backbone cut (`--runtime.shard`)? One model of each module.

    python benchmarks/cut_architectures.py [MODULE ...]

For each: every gradient of a batch against that of the same backbone uncut, and into how many parts it is cut. A few
differ by more than the tolerance, by 1.2e-3 at most: read the table beside the exit code, which is 0 only if all are
within it. In one process, whose part is the whole: what FSDP does to the modules is the same, and a weight that is read
where FSDP does not see it breaks the pass. How processes agree is tested in
`tests/stages/test_several_processes.py`. Writes `benchmarks/results/cut_architectures.json`.
About 3 minutes on 2 cores.
"""
# B images, C channels, H W pixels

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from benchmarks.architectures import MODULES, build, read_table, report
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.sharding import fsdp_units

TOLERANCE = 1e-4  # of a gradient's norm
SMALLEST = 1e-4  # of the norm of all gradients: what is smaller is compared with this much; a bias before a BatchNorm
# has a gradient of rounding errors alone


def main(modules: list[str]) -> int:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    table, rows = read_table(), []
    for module in modules or sorted(MODULES):
        rows.append(check(module, table[module], mesh))
        print(len(rows), *rows[-1].values(), flush=True)
    distributed.destroy_process_group()
    return report(rows, "cut_architectures", whole=not modules)


def check(module: str, name: str, mesh: DeviceMesh) -> dict[str, object]:
    """One row: what happened to the module's model."""
    start = time.perf_counter()
    row: dict[str, object] = {"module": module, "model": name}
    try:
        whole = build(name).train()
        cut = copy.deepcopy(whole)
        found = fsdp_units(cut)
        row["parts"] = len(found)
        row["largest_ratio"] = round(max(map(size, found), default=0) / size(whole), 3)
        row["in_parts_ratio"] = round(sum(map(size, found)) / size(whole), 3)
        for part in found:
            fully_shard(part, mesh=mesh)
        fully_shard(cut, mesh=mesh)
        row["worst"] = worst(whole, cut)
        row["result"] = "passed" if row["worst"] <= TOLERANCE else "its gradients differ"
    except Exception as error:
        row["result"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return {**row, "seconds": round(time.perf_counter() - start, 2)}


def worst(whole: Backbone, cut: Backbone) -> float:
    """The largest relative difference of a gradient; infinite where only one of the two has one."""
    images = torch.rand(2, whole.in_chans, *whole.image_size, generator=torch.Generator().manual_seed(0))
    for backbone in (whole, cut):
        torch.manual_seed(1)  # dropout
        sum(m.float().square().mean() for m in backbone(images)).backward()
    pairs = list(zip(whole.parameters(), cut.parameters(), strict=True))
    if any((p.grad is None) != (q.grad is None) for p, q in pairs):
        return float("inf")
    gradients = [(p.grad, q.grad.full_tensor()) for p, q in pairs if p.grad is not None]
    least = SMALLEST * norm([ours for ours, _ in gradients])
    return max(float((ours - theirs).norm() / max(float(ours.norm()), least)) for ours, theirs in gradients)


def norm(tensors: list[Tensor]) -> float:
    """The norm of all of them together."""
    return float(nn.utils.get_total_norm(tensors))


def size(module: nn.Module) -> int:
    """Its number of weights."""
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
