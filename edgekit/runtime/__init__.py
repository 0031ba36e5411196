"""Engines as they execute a model on the device: one module an engine."""
