"""The commands: they read options, then import what the work needs. ``--help`` and mistakes need no MindSpore."""
