"""Sweeps: cells, runners and launchers."""
