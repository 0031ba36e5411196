"""Smaller networks: channels, blocks and single weights that are left out."""
