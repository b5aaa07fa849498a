"""Operators whose best form differs by device. Only here and in `runtime` does code ask which device it runs on."""
