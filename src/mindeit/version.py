"""The version, in the one place that pyproject.toml and `mindeit.__version__` read."""

__version__ = "0.1.0"
