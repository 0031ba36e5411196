"""Channels, blocks and weights of a network that are left out."""
