"""`python -m rasa_core_api.test`: the name that `evaluate` has from 0.14 on."""

from __future__ import annotations

import sys

from rasa_core_api.evaluate import main

if __name__ == "__main__":
    sys.exit(main(log_to=sys.stderr))
