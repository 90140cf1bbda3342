"""One file per pretext task: damage an image, learn to undo it. `contract.py` says what each must give."""
