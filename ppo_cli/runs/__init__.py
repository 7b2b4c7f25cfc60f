"""The life of a run: it is built, trained, saved, evaluated, and goes on after a stop."""
