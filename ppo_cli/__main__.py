"""`python -m ppo_cli COMMAND ...`: the console scripts, where they are not on the PATH."""

import re
import sys

from ppo_cli.cli.entry import module

if __name__ == "__main__":
    if len(sys.argv) > 1 and re.match(r"[^-=]+=", sys.argv[1]):  # torchrun -m ppo_cli env=ID
        sys.argv.insert(1, "train")
    module()
