"""`python -m rasa_core_api`: what can be run."""

from __future__ import annotations

import importlib.util
import sys

from rasa_core_api.version import __version__

COMMANDS = {
    "run": "serve a bot: channels and HTTP API",
    "train": "train a dialogue model from domain and stories",
    "test": "evaluate a dialogue model on stories",
    "visualize": "draw stories as a graph",
    "check": "look for mistakes in domain, stories and endpoints before training",
    "nlu.train": "train an NLU model",
    "nlu.evaluate": "evaluate an NLU model, or cross-validate",
    "nlu.convert": "turn an old NLU model into the new format",
    "model_server": "publish models for servers that pull them",
    "conversations": "list, export, import and migrate stored conversations",
    "server": "deprecated: use run --enable_api",
    "evaluate": "deprecated: use test",
}


def available() -> dict[str, str]:
    """The commands of this build and what they do."""
    return {
        name: text for name, text in COMMANDS.items() if importlib.util.find_spec(f"rasa_core_api.{name}") is not None
    }


def main() -> int:
    """List the commands, or tell the version; 2 when something else was asked for."""
    if sys.argv[1:] == ["--version"]:
        print(__version__)
        return 0
    commands = available()
    width = max(map(len, commands))
    print("usage: python -m rasa_core_api.COMMAND --help\n\ncommands:")
    for name, text in commands.items():
        print(f"  {name:{width}}  {text}")
    print("\nexample: python -m rasa_core_api.run --enable_api -d models/dialogue -c rest")
    return 0 if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
