"""One file per kind of label: parsing, head, loss, metrics, display. `data/label_kinds.py` defines the interface."""
