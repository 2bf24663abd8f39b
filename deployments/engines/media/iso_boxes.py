"""The boxes of an MP4 or QuickTime file, read before FFmpeg reads them: its index costs memory that the file's length does not bound.

A table of equal sizes is one number in the file, yet FFmpeg makes an entry of 36 bytes for each sample that it declares: measured,
660 bytes cost 3 GB. Chunks of PCM, repeated edits, fragments without fields and encryption tables multiply in the same way. So we
walk the boxes as FFmpeg does (libavformat/mov.c takes a box by its name, wherever it lies), hold what is declared
against the limits, and read no payload but a few numbers.

Box layout and names: ISO/IEC 14496-12; 'cmov', 'hoov' and the QuickTime form of 'meta': QuickTime File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Never

import numpy as np

from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia

MAX_DEPTH: Final = 12  # FFmpeg gives up at 11; standard tables lie at 5
MAX_BOXES: Final = 200_000  # half a second of walking; the longest allowed video with a fragment for every second frame has as many
MAX_TRACKS: Final = 32  # FFmpeg notes every fragment for every track: 475 KB of fragments in 300 tracks cost 674 MB
PACKETS_PER_S: Final = 1000  # of all tracks but the video; Opus in its shortest packets has 400, PCM at 384 kHz in FFmpeg's 1024s has 375
PCM_RATE: Final = 384_000  # Hz, the highest in use
MAX_EDITED_SAMPLES: Final = 2_000_000  # samples x edits, since each edit may copy the whole index: 0.2 s and 80 MB at most

_CONTAINERS: Final = frozenset(
    b"moov trak mdia minf dinf stbl edts udta ilst tref mvex moof traf sinf schi wave meta iref hoov free".split()
)
_ENTRY_BYTES: Final = {  # tables of entries of one length: a count after version and flags, and then the entries
    b"stts": 8,
    b"ctts": 8,
    b"stsc": 12,
    b"stco": 4,
    b"co64": 8,
    b"stss": 4,
    b"stps": 4,
}
# Boxes whose inside FFmpeg searches for others at places that depend on the codec. None of these belongs there.
_OPAQUE: Final = (b"stsd", b"iprp")
_MISPLACED: Final = (b"moov", b"cmov", b"trak", b"stsz", b"stz2", b"elst", b"senc", b"saiz", b"moof", b"sidx", *_ENTRY_BYTES)
_ENCRYPTED: Final = frozenset({b"tenc", b"senc"})
_TRUN_FIELDS: Final = (0x100, 0x200, 0x400, 0x800)  # flags, each of which gives every sample a field of four bytes


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int  # of the payload, from the start of the file
    end: int


@dataclass(slots=True)
class _Track:
    """What one track declares."""

    handlers: set[bytes] = field(default_factory=set)
    samples: int = 0
    edits: int = 0
    chunks: int = 0
    counts: set[bytes] = field(default_factory=set)  # tables seen
    stsc: _Box | None = None
    ticks_of_one: bool = False  # stts is one entry, and its samples last one tick

    @property
    def is_pcm(self) -> bool:
        """Whether FFmpeg indexes chunks of this track and not its samples."""
        return self.handlers & {b"vide", b"soun", b"subp", b"clcp"} == {b"soun"} and self.ticks_of_one and b"ctts" not in self.counts


def check_index(path: Path, limits: MediaLimits) -> None:
    """Refuse an MP4 or QuickTime file whose index would cost more than its media may.

    Raises:
        MediaTooLarge: it declares more frames, packets, edits, fragments or tracks than the limits have room for.
        UnsupportedMedia: its tables contradict the length of their box or of the file, or it is encrypted.
    """
    with path.open("rb") as file:
        _IndexCheck(file, path.stat().st_size, limits).run()


class _IndexCheck:
    """One walk over one file."""

    def __init__(self, file: BinaryIO, size_bytes: int, limits: MediaLimits) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._limits = limits
        self._boxes = 0
        self._tracks = 0
        self._fragments = 0
        self._fragment_samples = 0
        self._indexed = 0
        self._track = _Track()  # what lies outside of any track is counted as a track too
        self._max_indexed = limits.max_frames + int(PACKETS_PER_S * limits.max_duration_s)

    def run(self) -> None:
        self._walk(_Box(b"root", 0, self._size_bytes), 0)
        self._close_track()

    def _walk(self, parent: _Box, depth: int) -> None:
        if depth > MAX_DEPTH:
            _damaged()
        for box in self._children(parent):
            if box.kind == b"trak":
                self._close_track()
            if box.kind in _CONTAINERS:
                self._enter(box, depth)
            else:
                self._visit(box)

    def _children(self, parent: _Box) -> Iterator[_Box]:
        """Yield boxes up to the parent's end; a child that claims more is cut there, as FFmpeg does."""
        at = parent.start
        while at + 8 <= parent.end:
            self._boxes += 1
            if self._boxes > MAX_BOXES:
                _too_large(f"more than {MAX_BOXES} boxes")
            head = self._read(at, 16)
            size, kind, start = int.from_bytes(head[:4]), head[4:8], at + 8
            if size == 1:
                size, start = int.from_bytes(head[8:16]), at + 16
            end = parent.end if size == 0 else min(at + size, parent.end)
            if end < start:  # FFmpeg reads no further in this parent either
                return
            yield _Box(kind, start, end)
            at = end

    def _enter(self, box: _Box, depth: int) -> None:
        if box.kind == b"moof":
            self._add_fragments(1)
        if box.kind in {b"hoov", b"free"} and self._read(box.start + 4, 4) not in {b"mvhd", b"cmov"}:
            return  # free space, and not the index in disguise
        skip = 4 if box.kind == b"iref" else 0
        if box.kind == b"meta":
            hdlr = self._read(box.start, 12)
            if b"hdlr" not in (hdlr[4:8], hdlr[8:12]):
                self._check_opaque(box)
                return
            skip = 0 if hdlr[4:8] == b"hdlr" else 4
        self._walk(_Box(box.kind, box.start + skip, box.end), depth + 1)

    def _visit(self, box: _Box) -> None:
        if box.kind == b"cmov":
            raise UnsupportedMedia("the video's index is compressed, as old QuickTime did it: save it again as MP4")
        if box.kind in _ENCRYPTED:
            raise UnsupportedMedia("the media is encrypted: send it without protection")
        if box.kind in _OPAQUE:
            self._check_opaque(box)
        elif box.kind == b"hdlr":
            self._track.handlers.add(self._read(box.start + 8, 4))
        elif box.kind in {b"stsz", b"stz2"}:
            self._add_sizes(box)
        elif box.kind in _ENTRY_BYTES:
            self._add_table(box)
        elif box.kind == b"elst":
            wide = self._read(box.start, 1) == b"\x01"  # version 1 has times of 64 bits
            self._track.edits += self._entries(box, 4, 20 if wide else 12)
        elif box.kind == b"trun":
            self._add_run(box)
        elif box.kind == b"sidx":
            wide = self._read(box.start, 1) != b"\x00"
            self._add_fragments(int.from_bytes(self._read(box.start + (30 if wide else 22), 2)))

    def _check_opaque(self, box: _Box) -> None:
        """Search a box that has no business to hold tables. It is small: some hundred bytes of codec parameters."""
        if box.end - box.start > 2**20:
            _damaged()
        payload = self._read(box.start, box.end - box.start)
        if any(kind in payload for kind in _ENCRYPTED):
            raise UnsupportedMedia("the media is encrypted: send it without protection")
        if any(kind in payload for kind in _MISPLACED):
            _damaged()

    def _add_sizes(self, box: _Box) -> None:
        """Count the samples of 'stsz' or 'stz2'; two such tables in one track would leave open which one counts."""
        size, count = struct.unpack(">II", self._read(box.start + 4, 8).ljust(8, b"\0"))
        self._once(b"stsz")
        if box.kind == b"stz2":
            self._check_fits(box, 12 + (count * (size & 0xFF) + 7) // 8)  # the last byte of the field: bits of each size
        elif size == 0:
            self._check_fits(box, 12 + count * 4)
        elif count * size > self._size_bytes:
            _damaged()
        self._track.samples = count

    def _add_table(self, box: _Box) -> None:
        count = self._entries(box, 4, _ENTRY_BYTES[box.kind])
        self._once(b"stco" if box.kind == b"co64" else box.kind)
        if box.kind in {b"stco", b"co64"}:
            self._track.chunks = count
        elif box.kind == b"stsc":
            self._track.stsc = _Box(box.kind, box.start + 8, box.start + 8 + count * 12)
        elif box.kind == b"stts":
            self._track.ticks_of_one = count == 1 and int.from_bytes(self._read(box.start + 12, 4)) == 1

    def _add_run(self, box: _Box) -> None:
        """Count the samples of a fragment's run. Without fields of their own they cost no byte, hence a limit beside the length."""
        flags = int.from_bytes(self._read(box.start, 4)) & 0xFFFFFF
        fixed = 4 * bool(flags & 0x1) + 4 * bool(flags & 0x4)
        count = int.from_bytes(self._read(box.start + 4, 4))
        self._check_fits(box, 8 + fixed + count * 4 * sum(bool(flags & each) for each in _TRUN_FIELDS))
        self._fragment_samples += count
        self._check_indexed(self._indexed + self._fragment_samples)

    def _add_fragments(self, count: int) -> None:
        self._fragments += count
        if self._fragments > self._limits.max_frames:
            _too_large(f"more than {self._limits.max_frames} fragments")

    def _close_track(self) -> None:
        """Judge the track that ends here."""
        track, self._track = self._track, _Track()
        self._tracks += 1
        if self._tracks > MAX_TRACKS + 1:  # one for what lies before the first
            _too_large(f"more than {MAX_TRACKS} tracks")
        if b"vide" in track.handlers and track.samples > self._limits.max_frames:
            raise MediaTooLarge(f"the video has more than {self._limits.max_frames} frames: shorten it or lower its frame rate")
        entries = track.chunks + self._pcm_samples(track) // 160 if track.is_pcm else track.samples  # 160: FFmpeg's shortest PCM packet
        if entries * track.edits > MAX_EDITED_SAMPLES:
            _too_large(f"{track.edits} edits")
        self._indexed += entries
        self._check_indexed(self._indexed + self._fragment_samples)

    def _pcm_samples(self, track: _Track) -> int:
        """Add up what 'stsc' gives to the chunks: FFmpeg indexes that, whatever 'stsz' says."""
        if track.stsc is None or track.chunks > self._max_indexed:
            return 0  # nothing to index, or refused already by its chunks
        table = np.frombuffer(self._read(track.stsc.start, track.stsc.end - track.stsc.start), ">u4").reshape(-1, 3).astype(np.int64)
        chunks = np.diff(table[:, 0], append=track.chunks + 1)
        if (chunks < 0).any():
            _damaged()
        samples = int((chunks * table[:, 1]).sum())
        if samples > PCM_RATE * self._limits.max_duration_s:
            raise MediaTooLarge(f"the media is longer than {self._limits.max_duration_s:g} seconds: shorten it")
        return samples

    def _check_indexed(self, entries: int) -> None:
        if entries > self._max_indexed:
            _too_large(f"more than {self._max_indexed} frames and packets")

    def _entries(self, box: _Box, at: int, entry_bytes: int) -> int:
        count = int.from_bytes(self._read(box.start + at, 4))
        self._check_fits(box, at + 4 + count * entry_bytes)
        return count

    def _check_fits(self, box: _Box, needed: int) -> None:
        if needed > box.end - box.start:
            _damaged()

    def _once(self, kind: bytes) -> None:
        if kind in self._track.counts:
            _damaged()
        self._track.counts.add(kind)

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)


def _damaged() -> Never:
    raise UnsupportedMedia("the file's index does not fit to its length: it is cut off or damaged, encode or send it again")


def _too_large(what: str) -> Never:
    raise MediaTooLarge(f"the file's index has {what}: shorten the media or encode it again")
