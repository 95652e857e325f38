"""Baselines: one file a method."""
