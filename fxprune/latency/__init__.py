"""Clocks, and what they say of models."""
