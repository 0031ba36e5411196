"""Pruning: channels, blocks, single weights, and what is worth keeping within a latency budget."""
