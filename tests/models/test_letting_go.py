from __future__ import annotations

import gc
from pathlib import Path

import pytest

from rasa_core_api.models.loader import load_generation


@pytest.mark.parametrize("name", ["cafe-full", "cafe-kerasfull", "cafe-sklearn", "cafe-embedding"])
def test_no_cycles(name: str, conformance: Path) -> None:
    """A model that is out of service frees its memory at once: neither it nor its readers hold themselves."""
    model = conformance / "models" / "rasa-core-0.11.12" / name
    load_generation(model)
    gc.collect()
    gc.disable()
    try:
        load_generation(model)
        assert gc.collect() == 0
    finally:
        gc.enable()
