"""How the processes of a run share the work of a step: one process, replicas (DDP), or a sharded backbone (FSDP)."""
