"""Sidecars: keywords and terms of ours come and go, those of others stay."""

import xml.etree.ElementTree as ET

import pytest

from openmofi.errors import InputError
from openmofi.tag import Tag
from openmofi.tag.tagger import Evidence
from openmofi.tag.xmp import write_sidecar

DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
OTHER = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
    xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject><rdf:Bag><rdf:li>holiday</rdf:li><rdf:li>France</rdf:li></rdf:Bag></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>"""


def _tag(identifier, label):
    return Tag(identifier, label, "", 0.9, None, Evidence(None, 0.1, None, ()))


def _keywords(path):
    return [item.text for item in ET.parse(path).findall(f".//{DC}subject/{RDF}Bag/{RDF}li")]


def test_keywords_of_others_stay_and_ours_make_room(tmp_path):
    path = tmp_path / "a.jpg.xmp"
    path.write_text(OTHER)
    for tags, ours in (
        ([_tag("Q142", "France"), _tag("Q183", "Germany")], ["Germany"]),
        ([_tag("Q38", "Italy")], ["Italy"]),
        ([], []),
    ):
        write_sidecar(path, tags)
        assert _keywords(path) == ["holiday", "France", *ours]
        assert 'xmp:Rating="4"' in path.read_text()


def test_a_wikidata_id_is_written_as_a_term_with_its_uri(tmp_path):
    write_sidecar(tmp_path / "a.xmp", [_tag("Q142", "France"), _tag("sku-7", "<Apple> & Co")])
    text = (tmp_path / "a.xmp").read_text()
    assert text.count("http://www.wikidata.org/entity/Q142") == 2  # the term, and our list
    assert "sku-7" not in text
    assert _keywords(tmp_path / "a.xmp") == ["France", "<Apple> & Co"]


def test_keywords_go_where_keywords_are_and_the_rest_stays(tmp_path):
    parts = OTHER.replace("rdf:Bag", "rdf:Seq").split("  <rdf:Description")
    first = '  <!-- mine --><rdf:Description rdf:about="" xmlns:a="urn:a" a:b="1"/>\n'
    packet = '<?xpacket begin="" id="W5M0"?>\n', '\n<?xpacket end="w"?>\n'
    path = tmp_path / "a.xmp"
    path.write_text(packet[0] + parts[0] + first + "  <rdf:Description" + parts[1] + packet[1])
    write_sidecar(path, [_tag("Q38", "Italy\x0b")])
    text = path.read_text()
    keywords = ET.fromstring(text).findall(f".//{DC}subject")
    assert [[item.text for item in k[0]] for k in keywords] == [["holiday", "France", "Italy"]]
    assert text.startswith(packet[0])
    assert text.endswith(packet[1])
    assert "<!-- mine -->" in text
    write_sidecar(path, [])
    assert "openmofi" not in path.read_text().replace("xmlns:openmofi", "")


def test_what_is_no_xmp_is_left_alone(tmp_path):
    for content in ("<html/>", "plain", ""):
        (tmp_path / "a.xmp").write_text(content)
        with pytest.raises(InputError, match="is not XMP"):
            write_sidecar(tmp_path / "a.xmp", [_tag("Q1", "x")])
        assert (tmp_path / "a.xmp").read_text() == content
