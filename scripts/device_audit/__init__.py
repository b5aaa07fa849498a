"""Compile training steps for devices that are not there. `scripts/audit_devices.py` is the command."""
