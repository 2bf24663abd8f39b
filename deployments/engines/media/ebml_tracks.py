"""The tracks of a Matroska or WebM file, read before FFmpeg reads them: their compression costs memory that no limit of ours counts.

A track may say that its frames are compressed, and FFmpeg expands all frames of a block, 256 at most, before it hands out the first:
measured, 1 MB of "stripped header" took 247 MB, and zlib grows each frame to 10 MB. Encoders strip a few bytes of video and sound at
most, so more than that is refused. Subtitles are often zlib, and opening a file expands them before a stream can be discarded:
``MaskedFile`` shows FFmpeg the same file with the type of those tracks turned into one that it ignores.

FFmpeg looks for the tracks in order, where a SeekHead points, and after any damage wherever their id stands in the file
(``matroska_resync`` in libavformat/matroskadec.c). So we read them at every place where it stands.

Element ids and types: RFC 9559 (Matroska); element headers: RFC 8794 (EBML).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Never, Protocol

from deployments.engines.media.iso_boxes import MAX_TRACKS
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia

MAX_STRIPPED_BYTES: Final = 64  # mkvmerge strips 1 to 4 bytes; 64 for each of 256 frames are 16 KB a block
MAX_ELEMENTS: Final = 20_000  # in all tracks: each may cost FFmpeg some hundred bytes (Colour); a track has some 60
MAX_PLACES: Final = 16  # where the id of Tracks stands: once, and by chance in one of eight files of 512 MiB

_TRACKS: Final = 0x1654AE6B
_TRACK_ENTRY: Final = 0xAE
_VOID: Final = 0xEC
_CRC_32: Final = 0xBF
_TRACK_TYPE: Final = 0x83
_CONTENT_ENCODING: Final = 0x6240
_CONTENT_ENCODING_TYPE: Final = 0x5033  # 0 is compression, 1 encryption
_CONTENT_COMPRESSION: Final = 0x5034
_CONTENT_COMP_ALGO: Final = 0x4254
_CONTENT_COMP_SETTINGS: Final = 0x4255
# Elements that FFmpeg takes apart, by the one in which it expects them. Some are lists: each entry costs memory.
_MASTERS: Final = {
    _TRACKS: {_TRACK_ENTRY},
    _TRACK_ENTRY: {0xE0, 0xE1, 0xE2, 0x6D80, 0x41E4},  # Video, Audio, TrackOperation, ContentEncodings, BlockAdditionMapping
    0xE0: {0x55B0, 0x7670},  # Colour, Projection
    0x55B0: {0x55D0},  # MasteringMetadata
    0xE2: {0xE3},  # TrackCombinePlanes
    0xE3: {0xE4},  # TrackPlane
    0x6D80: {_CONTENT_ENCODING},
    _CONTENT_ENCODING: {_CONTENT_COMPRESSION, 0x5035},  # and ContentEncryption
}
_VIDEO: Final = 1  # TrackType
_AUDIO: Final = 2
_CONTROL: Final = 0x20  # FFmpeg makes no stream of it and skips its blocks unread
_HEADER_STRIPPING: Final = 3  # ContentCompAlgo; 0, the default, is zlib
_UNKNOWN: Final = 2**63  # for an end: the element has no length
_SCAN_BYTES: Final = 2**20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Element:
    id: int
    start: int  # of the payload, from the start of the file
    end: int


@dataclass(slots=True)
class _Encoding:
    """What one ContentEncoding says. What it says twice is kept twice, so that no order of elements hides one."""

    types: set[int] = field(default_factory=set)
    algorithms: set[int] = field(default_factory=set)
    settings_bytes: int = 0

    @property
    def is_short_header(self) -> bool:
        return self.algorithms == {_HEADER_STRIPPING} and not any(self.types) and self.settings_bytes <= MAX_STRIPPED_BYTES


@dataclass(slots=True)
class _Track:
    types: set[int] = field(default_factory=set)
    type_places: list[int] = field(default_factory=list)  # of the last byte of each TrackType
    encodings: list[_Encoding] = field(default_factory=list)


def check_tracks(path: Path) -> tuple[int, ...]:
    """Refuse a Matroska or WebM file whose tracks would cost more than its media may.

    Returns:
        Places of bytes for ``MaskedFile``: the types of compressed tracks that are neither video nor sound. Mostly none.

    Raises:
        MediaTooLarge: too many tracks, or elements in them.
        UnsupportedMedia: video or sound is encrypted or compressed beyond a short stripped header, or the tracks have no length.
    """
    with path.open("rb") as file:
        places = _TracksCheck(file).run()
        # Tracks may lie within others: what masks the one may change the other.
        if places and _TracksCheck(MaskedFile(file, places)).run() != places:
            _damaged("its tracks overlap")
    return places


class MaskedFile:
    """A file for FFmpeg, in which the tracks with these type bytes are of a type that it ignores."""

    def __init__(self, file: BinaryIO, type_places: tuple[int, ...]) -> None:
        self._file = file
        self._type_places = type_places

    def read(self, size: int, /) -> bytes:
        """Read up to ``size`` bytes; none at the end."""
        start = self._file.tell()
        data = bytearray(self._file.read(size))
        for place in self._type_places:
            if start <= place < start + len(data):
                data[place - start] = _CONTROL
        return bytes(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._file.tell()


class _TracksCheck:
    """One search through one file."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._size_bytes = file.seek(0, 2)
        self._elements = 0
        self._tracks: list[_Track] = []

    def run(self) -> tuple[int, ...]:
        for count, at in enumerate(self._places(), start=1):
            if count > MAX_PLACES:
                _damaged("it lists its tracks again and again")
            self._walk_tracks(at)
        return tuple(place for track in self._tracks for place in _places_to_mask(track))

    def _places(self) -> Iterator[int]:
        """Yield where the id of Tracks stands, as an element or by chance."""
        key = _TRACKS.to_bytes(4)
        at, window = 0, b""
        while chunk := self._read(at + len(window), _SCAN_BYTES):
            window += chunk
            found = window.find(key)
            while found >= 0:
                yield at + found
                found = window.find(key, found + 1)
            at, window = at + len(window) - 3, window[-3:]  # an id may cross into the next chunk

    def _walk_tracks(self, at: int) -> None:
        tracks = self._element(at)
        if tracks is None:
            return
        if tracks.end < _UNKNOWN:
            self._walk(tracks)
            return
        first = self._element(tracks.start)  # FFmpeg accepts this, no encoder writes it, and bytes by chance look otherwise
        if first is not None and first.id in {_TRACK_ENTRY, _VOID, _CRC_32}:
            _damaged("its list of tracks has no end")

    def _walk(self, parent: _Element) -> None:
        """Visit children up to the parent's end or to the first that does not fit in: there FFmpeg gives up too."""
        at = parent.start
        while at < parent.end:
            self._elements += 1
            if self._elements > MAX_ELEMENTS:
                raise MediaTooLarge(f"the file's tracks have more than {MAX_ELEMENTS} elements: encode it again")
            child = self._element(at)
            if child is None or child.end > parent.end:
                return
            self._visit(parent.id, child)
            at = child.end

    def _visit(self, parent_id: int, child: _Element) -> None:
        if child.id in _MASTERS.get(parent_id, ()):
            self._open(child.id)
            self._walk(child)
            return
        place = (parent_id, child.id)
        if place == (_TRACK_ENTRY, _TRACK_TYPE) and child.start < child.end:
            self._tracks[-1].types.add(self._uint(child))
            self._tracks[-1].type_places.append(child.end - 1)
        elif place == (_CONTENT_ENCODING, _CONTENT_ENCODING_TYPE):
            self._encoding.types.add(self._uint(child))
        elif place == (_CONTENT_COMPRESSION, _CONTENT_COMP_ALGO):
            self._encoding.algorithms.add(self._uint(child))
        elif place == (_CONTENT_COMPRESSION, _CONTENT_COMP_SETTINGS):
            self._encoding.settings_bytes = max(self._encoding.settings_bytes, child.end - child.start)

    @property
    def _encoding(self) -> _Encoding:
        return self._tracks[-1].encodings[-1]

    def _open(self, master_id: int) -> None:
        if master_id == _TRACK_ENTRY:
            self._tracks.append(_Track())
            if len(self._tracks) > MAX_TRACKS:
                raise MediaTooLarge(f"the file has more than {MAX_TRACKS} tracks: send it with fewer")
        elif master_id == _CONTENT_ENCODING:
            self._tracks[-1].encodings.append(_Encoding())

    def _element(self, at: int) -> _Element | None:
        """Read the id and length of an element, or None where none begins."""
        head = self._read(at, 12)
        id_bytes = _number_bytes(head, 0)
        length_bytes = _number_bytes(head, id_bytes)
        start = at + id_bytes + length_bytes
        if not 1 <= id_bytes <= 4 or not length_bytes or start > self._size_bytes:
            return None
        marked = int.from_bytes(head[id_bytes : id_bytes + length_bytes])
        length = marked ^ 1 << 7 * length_bytes  # the highest bit says how many bytes the number has
        end = _UNKNOWN if length + 1 == 1 << 7 * length_bytes else start + length
        return _Element(int.from_bytes(head[:id_bytes]), start, end)

    def _uint(self, element: _Element) -> int:
        return int.from_bytes(self._read(element.start, min(element.end - element.start, 8)))

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)


def _places_to_mask(track: _Track) -> list[int]:
    """Judge a track: refuse it, hide it or, for most, neither."""
    if all(encoding.is_short_header for encoding in track.encodings):
        return []
    if not track.types & {_VIDEO, _AUDIO}:
        return track.type_places
    if any(any(encoding.types) for encoding in track.encodings):
        raise UnsupportedMedia("the media is encrypted: send it without protection")
    raise UnsupportedMedia(
        "the file compresses its video or sound once more: save it again without, for example by mkvmerge --compression -1:none"
    )


def _number_bytes(head: bytes, at: int) -> int:
    """Return how many bytes the number has that begins here, by its leading zero bits; 0 for no number."""
    return 9 - head[at].bit_length() if at < len(head) and head[at] else 0


def _damaged(how: str) -> Never:
    raise UnsupportedMedia(f"the file is damaged: {how}, encode or send it again")
