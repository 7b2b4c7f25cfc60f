"""The report's figures, each kind in a module."""
