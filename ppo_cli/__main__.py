"""`python -m ppo_cli COMMAND ...`: the console scripts, where they are not on the PATH."""

from ppo_cli.cli.entry import module

if __name__ == "__main__":
    module()
