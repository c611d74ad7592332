"""Penalties inside other projects' training loops; each file needs the extra of its name."""
