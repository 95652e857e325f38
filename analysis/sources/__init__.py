"""Readers: each turns one kind of results into rows of `analysis.results`."""
