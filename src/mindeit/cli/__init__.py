"""The commands: they read options, then load what the work takes. ``--help`` and mistakes need no MindSpore."""
