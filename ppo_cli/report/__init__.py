"""Runs compared: found and read, summarised with intervals, drawn, and written as a page."""
