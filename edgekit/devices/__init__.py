"""Devices over SSH: how they are named and reached, what is sent there, and what runs there."""
