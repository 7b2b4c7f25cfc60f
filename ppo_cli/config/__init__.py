"""What can be set: its schema, and how YAML and a command line become one of it."""
