"""Searches by Optuna: `ppo-train -m hydra/sweeper=optuna ...`; they start in `search.py`."""
