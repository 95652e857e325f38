"""Figures from results, in one style, byte for byte the same from the same results."""
