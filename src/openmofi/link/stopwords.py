"""Words that are names of something but hardly ever mean it in captions.

There is a band called "The" and a film called "If". Single words of these lists are not mentions;
longer names may contain them: "The Who", "Amazon River". In capitals, in a caption that also has
small letters, they may be a name that is written in capitals: US, WHO, IT.

In: the languages of a knowledge base. Out: words in canonical form.
"""

from collections.abc import Iterable
from functools import cache

from openmofi.kb.text import canonical_batch
from openmofi.link.function_words import FUNCTION_WORDS_OF

# English function words and the most common verb forms, as canonical tokens.
_FUNCTION_WORDS = """
a about above across after again against ago all almost alone along already also although always
am amid among an and another any anybody anyone anything anywhere are around as at away back be
became because become been before behind being below beside between beyond both but by came can
cannot come could d day de did do does doing done down due during each eight either else enough
etc even ever every everyone everything few first five for found four from full get gets getting
give given go goes going gone good got great had has have having he her here hers herself high him
himself his hour how however i if in inside instead into is it its itself just keep kept know
known la last later le least left less let like ll look looking looks low made make makes making
many may maybe me men might mine more most much must my myself near never new next nine no nobody
none nor not nothing now of off often old on once one only onto or other others our ours ourselves
out outside over own part per put quite rather re really s said same saw say says second see seen
set seven several shall she should show shown shows side since six small so some somebody someone
something still such t take taken takes taking ten than that the their theirs them themselves then
there these they thing things third this those though three through throughout thus to today
together told too top took toward towards two under until up upon us use used using ve very via
view want was way we well went were what when where whether which while who whom whose why will
with within without would yes yet you your yours yourself
"""

# Boilerplate of alternative texts, as CLOC filters it (Apple's ml-cloc), plus its plain forms.
_ALT_TEXT_WORDS = """
alibaba amazon background backgrounds buy caption clipart download facebook file free hd
illustration illustrations image images img jpeg jpg logo online original photo photograph
photographs photography photos pic picture pictures pinterest png preview price rf royalty sale
screenshot shop shutterstock stock thumbnail twitter vector video wallpaper wallpapers wholesale
www
"""

# Units, ordinals and abbreviations next to numbers and names in captions.
_BESIDE_NUMBERS = """
am ac bc bce ce cl cm cc dl fl ft gb ha hp hz ii iii in iv jr kb kg km kw lb lbs mb mg ml mm mph nd
nr oz pc pcs pm pt px qt rd sq sr st tb th vi vs xi xl yd yr
"""

STOP_WORDS = frozenset((_FUNCTION_WORDS + _ALT_TEXT_WORDS).split())
"""English stop words and boilerplate, in canonical form."""


def stop_words(languages: Iterable[str]) -> frozenset[str]:
    """Returns the words that are not mentions when names of these languages are linked.

    Args:
        languages: Wikidata's codes; English is always included, and unknown codes add no words.
    """
    codes = {code.partition("-")[0] for code in languages}
    listed = [FUNCTION_WORDS_OF[code] for code in sorted(codes & FUNCTION_WORDS_OF.keys())]
    return STOP_WORDS | _folded(" ".join(listed))


@cache
def words_anywhere() -> frozenset[str]:
    """Returns the function words and abbreviations of all languages: et, il, cm."""
    return _folded(" ".join([_FUNCTION_WORDS, _BESIDE_NUMBERS, *FUNCTION_WORDS_OF.values()]))


def _folded(words: str) -> frozenset[str]:
    return frozenset(canonical_batch(words.split()).to_pylist())
