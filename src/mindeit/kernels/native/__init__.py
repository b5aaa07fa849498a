"""Fused float32 operators for CPU, in C++: compiled on the machine they run on, and left out where that fails."""
