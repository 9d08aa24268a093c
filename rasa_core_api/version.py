"""The version of this package and of the wire format that it speaks by default."""

__version__ = "0.1.0"

#: The Rasa Core release whose wire shapes are answered unless an operator chooses another.
DEFAULT_COMPATIBILITY_VERSION = "0.11.12"
