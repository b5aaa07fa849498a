"""From configuration to objects. Besides `cli`, only this package knows the configuration."""
