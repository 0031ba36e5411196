"""Pruning of a recipe's student to a latency budget."""
