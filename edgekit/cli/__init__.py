"""Thin click commands, one file a group of commands."""
