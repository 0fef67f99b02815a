"""The version, where modules below the package's `__init__` can read it too."""

__version__ = "0.1.0"
