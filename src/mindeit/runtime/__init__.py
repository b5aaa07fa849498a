"""The machine: devices, ranks, output on a terminal."""
