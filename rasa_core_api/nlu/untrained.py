"""What stands for parts that a pipeline names but that had nothing to learn."""

from __future__ import annotations

from rasa_core_api.nlu.message import Message, set_ranking


class UntrainedIntents:
    """An intent classifier that had fewer than two intents to learn.

    The original's sklearn classifier answers `"intent": null` then (`null_intent`), others an intent without a name.
    """

    def __init__(self, name: str, null_intent: bool) -> None:
        self.name = name
        self.null_intent = null_intent

    def process(self, message: Message) -> None:
        """Rank nothing."""
        set_ranking(message, [])
        if self.null_intent:
            message.intent = None


class UntrainedEntities:
    """`ner_crf` without an entity to learn: finds nothing."""

    name = "ner_crf"

    def process(self, message: Message) -> None:
        """Leave the message as it is."""
