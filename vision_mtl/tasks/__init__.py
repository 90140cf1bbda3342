"""One file per kind of label: reading, head, loss, metrics, display. `data/label_kinds.py` is the contract."""
