"""Which items of a dump are kept: the presets image, wikipedia and full, by class and sitelinks.

In: an item's sitelinks and its classes (P31). Out: the reason for leaving it out, or None. The ids
below are items of https://www.wikidata.org.
"""

from collections.abc import Collection

# Internal pages of Wikimedia's wikis, which name no thing; their labels would hide real entities.
WIKIMEDIA_PAGES = frozenset(
    {
        "Q4167410",  # disambiguation page
        "Q22808320",  # human name disambiguation page
        "Q66480449",  # surname disambiguation page
        "Q15407973",  # disambiguation category
        "Q4167836",  # category
        "Q24046192",  # category of stubs
        "Q15647814",  # administration category
        "Q30432511",  # metacategory
        "Q59541917",  # topic category
        "Q11266439",  # template
        "Q11753321",  # navigational template
        "Q19887878",  # infobox template
        "Q13406463",  # list article
        "Q15184295",  # module
        "Q14204246",  # project page
        "Q4663903",  # portal
        "Q17442446",  # internal item
        "Q17362920",  # duplicated page
        "Q21286738",  # permanent duplicate item
    }
)

# A third of Wikidata. Their titles are whole sentences or everyday words, and no image shows them.
SCHOLARLY_ARTICLES = frozenset(
    {
        "Q13442814",  # scholarly article
        "Q18918145",  # academic journal article
        "Q7318358",  # review article
        "Q23927052",  # conference paper
        "Q580922",  # preprint
        "Q1266946",  # thesis
        "Q187685",  # doctoral thesis
        "Q871232",  # editorial
        "Q1348305",  # erratum
        "Q45182324",  # retracted paper
        "Q2782326",  # case report
        "Q815382",  # meta-analysis
        "Q1504425",  # systematic review
        "Q30612",  # clinical trial
    }
)

# No image shows the name Oscar; it may show people or prizes of that name.
NAME_ITEMS = frozenset(
    {
        "Q202444",  # given name
        "Q12308941",  # male given name
        "Q11879590",  # female given name
        "Q3409032",  # unisex given name
        "Q101352",  # family name
        "Q66480858",  # affixed family name
        "Q29042997",  # double family name
        "Q110874",  # patronymic
    }
)


def refusal_by_sites(sites: Collection[str], preset: str, wanted_sites: frozenset) -> str | None:
    """Returns why an item with these sitelinks is left out, or None; cheaper than by classes."""
    if preset == "image" and not sites:
        return "no_sitelink"
    if preset == "wikipedia" and wanted_sites.isdisjoint(sites):
        return "no_article"
    return None


def refusal_by_types(types: Collection[str], preset: str) -> str | None:
    """Returns why an item of these classes is left out, or None."""
    if not types:
        return None
    if not WIKIMEDIA_PAGES.isdisjoint(types):
        return "wikimedia_page"
    if preset == "image":
        if not SCHOLARLY_ARTICLES.isdisjoint(types):
            return "scholarly_article"
        # Some names of people are also places or things, which are kept.
        if NAME_ITEMS.issuperset(types):
            return "name_item"
    return None


def wikipedias(languages: Collection[str]) -> frozenset[str]:
    """Returns the site ids of the languages' Wikipedias: "en" gives "enwiki"."""
    return frozenset(f"{code.replace('-', '_')}wiki" for code in languages if code != "mul")
