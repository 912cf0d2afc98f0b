"""One locked, verified, uv-managed environment per plugin of a benchmark."""

__version__ = "0.1.0"
