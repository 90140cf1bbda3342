"""Imported by pytest before the tests and the notebooks: each process computes with one thread, or they would wait."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which reads it once
