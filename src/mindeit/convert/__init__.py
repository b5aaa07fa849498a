"""Conversion of official PyTorch files, in both directions, with a parity check."""
