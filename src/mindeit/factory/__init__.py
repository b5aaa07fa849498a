"""From configuration to objects. Besides `cli`, only this room knows the configuration."""
