"""Channels: how users reach the bot. A channel of your own derives from `InputChannel` and `OutputChannel`."""

from rasa_core_api.channels.channel import CollectingOutputChannel, InputChannel, OutputChannel
from rasa_core_api.messages import UserMessage

__all__ = ["CollectingOutputChannel", "InputChannel", "OutputChannel", "UserMessage"]
