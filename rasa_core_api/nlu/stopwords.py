"""English words that say little about what a text is about (`stop_words: english`)."""

from __future__ import annotations

_ARTICLES_AND_DETERMINERS = """
a an the this that these those some any no every each either neither both all another other others such same own
much many more most few fewer less least several enough
"""
_PRONOUNS = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves who whom whose which what whoever whatever whichever
one someone somebody something anyone anybody anything noone nobody nothing none everyone everybody everything
"""
_PREPOSITIONS = """
about above across after against along amid among amongst around as at before behind below beneath beside besides
between beyond but by despite down during except for from in inside into like near of off on onto out outside over
per since than through throughout thru till to toward towards under until unto up upon via with within without
"""
_CONJUNCTIONS_AND_ADVERBS = """
and or nor so yet if unless because although though while whereas whether when whenever where wherever why how
however therefore thus hence moreover furthermore nevertheless otherwise else then there here now again ever never
always often sometimes also too very only just even still already almost once together rather quite perhaps
not well
"""
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing done can could may might must shall should
will would cannot
"""

ENGLISH = frozenset(
    " ".join((_ARTICLES_AND_DETERMINERS, _PRONOUNS, _PREPOSITIONS, _CONJUNCTIONS_AND_ADVERBS, _AUXILIARIES)).split()
)
