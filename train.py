"""The front door: `python train.py --stage pretrain`. `--help` lists the stages and every option."""

import sys

from vision_mtl.cli.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
