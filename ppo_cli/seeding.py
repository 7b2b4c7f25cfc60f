"""The generators that everything in a process shares."""

import random

import numpy as np


def seed_global_generators(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's, from which some environments draw."""
    import torch  # late: it takes long, and commands that only look at runs do without

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
