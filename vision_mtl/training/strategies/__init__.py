"""Strategies: how the processes of a run share a step. One process, replicas (DDP), or a sharded backbone (FSDP)."""
