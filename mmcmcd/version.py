"""The one place that holds the version (read by ``setup.py`` too)."""

__version__ = '0.1.0'
