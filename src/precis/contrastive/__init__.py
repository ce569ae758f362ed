"""Representations from pairs: what is the same picture must be told from what is another."""
