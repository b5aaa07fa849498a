"""Operators whose best form differs by device. Each file answers one question; the rest of the house never asks."""
