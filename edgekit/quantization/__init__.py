"""Schemes, plans and calibration."""
