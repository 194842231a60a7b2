"""Run one cell, or with -m a sweep of them: `python run.py scheduler=prefill_first engine.max_num_seqs=32`."""

import sys

from framework.app.cli.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
