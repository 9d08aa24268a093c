"""One loaded dialogue model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.policies.ensemble import Ensemble
from rasa_core_api.releases import Release


@frozen(kw_only=True)
class Generation:
    """Domain and policies that belong together; put into service and replaced as a whole.

    `metadata` is the model's own metadata file, `source` says where the model came from. `interpreter` understands
    texts with an NLU model that came in the same archive. `directory`: where its files lie, if they stay there.
    """

    domain: Domain
    ensemble: Ensemble = field(repr=False)
    fingerprint: str
    metadata: Mapping[str, JSON] = field(repr=False)
    source: str = ""
    interpreter: Interpreter | None = field(default=None, repr=False)
    directory: Path | None = None

    @property
    def release(self) -> Release:
        """The release whose rules the model follows."""
        return self.domain.release
