"""A dialogue server for bots made with Rasa Core 0.8 to 0.14."""

from rasa_core_api.version import __version__

__all__ = ["__version__"]
