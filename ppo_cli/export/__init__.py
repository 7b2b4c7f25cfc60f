"""Policies as files that act without this package."""
