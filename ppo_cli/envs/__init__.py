"""Environments: making them, their spaces, seeds, and vectors of them."""
