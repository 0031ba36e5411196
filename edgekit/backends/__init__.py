"""Engines as they prepare a model on the workstation: one module an engine."""
