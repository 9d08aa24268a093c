"""`python -m rasa_core_api.test`: the name that `evaluate` has from 0.14 on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rasa_core_api import evaluate


def main(arguments: Sequence[str] | None = None, log_to: TextIO | None = None) -> int:
    """Run the command line of `evaluate` under this name."""
    return evaluate.main(arguments, log_to, "test")


if __name__ == "__main__":
    sys.exit(main(log_to=sys.stderr))
