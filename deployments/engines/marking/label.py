"""The machine-readable label of generated media: one JSON object of seven strings under a field whose name contains ``AIGC``.

GB 45438-2025, Annex E. Its carriers are described in the sibling modules, one container each.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal
from xml.sax.saxutils import escape, unescape

FIELD = "AIGC"
NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"

# Annex E: 0x21, 0x23-0x5B, 0x5D-0x7E, so no space, quotation mark or backslash; what names a service is a code.
PLAIN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]*")

_RDF_END = b"</rdf:RDF>"
_QUOTES = {'"': "&quot;", "'": "&apos;"}
_UNQUOTES = {"&quot;": '"', "&apos;": "'", "&#34;": '"', "&#x22;": '"', "&#39;": "'", "&#x27;": "'"}
_ATTRIBUTE = re.compile(rb"""\s+[A-Za-z_][\w.-]*:AIGC\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ELEMENT = re.compile(rb"<([A-Za-z_][\w.-]*:AIGC)(?:\s[^>]*)?>(.*?)</\1\s*>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AigcLabel:
    """Says that a file is generated, by whom, and which production it was."""

    producer: str  # code of the service that made it
    produce_id: str  # number of the production at that service
    label: Literal["1", "2", "3"] = "1"  # is, may be, is suspected to be generated
    producer_check: str = ""  # ReservedCode1: integrity data of the producer
    propagator: str = ""  # code of the service that distributes it
    propagate_id: str = ""
    propagator_check: str = ""  # ReservedCode2

    def __post_init__(self) -> None:
        if not all(PLAIN.fullmatch(value) for value in asdict(self).values()):
            raise ValueError("the label holds printable ASCII without spaces, quotation marks and backslashes: use codes for names")

    def to_json(self) -> str:
        """Return the object as it is written, in the order of Annex E."""
        fields = {
            "Label": self.label,
            "ContentProducer": self.producer,
            "ProduceID": self.produce_id,
            "ReservedCode1": self.producer_check,
            "ContentPropagator": self.propagator,
            "PropagateID": self.propagate_id,
            "ReservedCode2": self.propagator_check,
        }
        return json.dumps(fields, separators=(",", ":"))


def parse_label(text: str) -> dict[str, str] | None:
    """Read a label as it is found in the wild: bare, or wrapped in ``{"AIGC": …}``; None when it is neither."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and isinstance(value.get(FIELD), dict):
        value = value[FIELD]
    if not isinstance(value, dict) or "Label" not in value:
        return None
    return {str(name): str(held) for name, held in value.items()}


def put_into_xmp(packet: bytes | None, text: str) -> bytes:
    """Return an XMP packet with the label and with all else that ``packet`` says.

    Args:
        packet: XMP in UTF-8 as it was found, or None. One that is no XMP is replaced.
        text: the label's JSON.
    """
    kept = take_out_of_xmp(packet) if packet else b""
    described = f'<rdf:Description rdf:about="" xmlns:TC260="{NAMESPACE}" TC260:{FIELD}="{escape(text, _QUOTES)}"/>'.encode()
    head, end, tail = kept.rpartition(_RDF_END)
    if end:
        return head + described + end + tail
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' + described + _RDF_END + b'</x:xmpmeta><?xpacket end="w"?>'
    )


def take_out_of_xmp(packet: bytes) -> bytes:
    """Return the packet without any label: a file has one, and two count as none."""
    return _ELEMENT.sub(b"", _ATTRIBUTE.sub(b"", packet))


def find_in_xmp(packet: bytes) -> list[str]:
    """Return the JSON of every label in an XMP packet."""
    found = [double or single for double, single in _ATTRIBUTE.findall(packet)]
    found += [text for _, text in _ELEMENT.findall(packet)]
    return [unescape(text.decode("utf-8", "replace"), _UNQUOTES) for text in found]
