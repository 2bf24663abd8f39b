import resource
import struct

import pytest

from deployments.engines.media.container import open_media
from deployments.engines.media.iso_boxes import MAX_BOXES, MAX_TRACKS, check_index
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia

DAMAGED = "does not fit to its length"
ENCRYPTED = "is encrypted"
MANY = 20_000_000  # samples: 700 MB of FFmpeg's index


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full(kind, *parts, flags=0):
    return box(kind, u32(flags), *parts)


def table(kind, entries):
    return full(kind, u32(len(entries), *[value for entry in entries for value in entry]))


def stsd(video, *inside):
    entry = bytes(6) + b"\0\1"
    if video:
        return full(b"stsd", u32(1), box(b"avc1", entry, bytes(16), struct.pack(">HH", 64, 64), bytes(50), *inside))
    return full(b"stsd", u32(1), box(b"sowt", entry, bytes(8), struct.pack(">HHHHI", 1, 16, 0, 0, 48_000 << 16), *inside))


def trak(handler=b"vide", *, stsz=(0, 0), stts=((1, 1),), stsc=((1, 1, 1),), stco=((0,),), edits=(), stsd_holds=b"", extra=b""):
    stbl = box(
        b"stbl", stsd(handler == b"vide", stsd_holds), table(b"stts", stts), table(b"stsc", stsc),
        full(b"stsz", u32(*stsz)), table(b"stco", stco), extra,
    )  # fmt: skip
    mdia = box(b"mdia", full(b"mdhd", u32(0, 0, 1000, 1000, 0)), full(b"hdlr", bytes(4), handler, bytes(13)), box(b"minf", stbl))
    return box(b"trak", full(b"tkhd", u32(0, 0, 1, 0, 0), bytes(60)), box(b"edts", table(b"elst", edits)) if edits else b"", mdia)


def moov(*inside):
    return box(b"moov", full(b"mvhd", u32(0, 0, 1000, 1000), bytes(80)), *inside)


def moof(run):
    return box(b"moof", full(b"mfhd", u32(1)), box(b"traf", full(b"tfhd", u32(1, 1, 1), flags=0x18), run))


def sound(**tables):
    return trak(b"soun", **tables)


BOMB = trak(stsz=(1, MANY))
FRAGMENTED = moov(trak(stts=(), stsc=(), stco=()), box(b"mvex", full(b"trex", u32(1, 1, 1, 1, 0))))
LARGE_BOX = u32(1) + b"moov" + struct.pack(">Q", 16 + len(BOMB)) + BOMB  # 64-bit size
OPEN_BOX = u32(0) + b"moov" + BOMB  # to the end of the file
CUT_BOX = u32(10_000_000) + b"moov" + BOMB  # longer than the file

BOMBS = {
    "equal sizes": (moov(BOMB), DAMAGED),
    "64-bit size": (LARGE_BOX, DAMAGED),
    "open size": (OPEN_BOX, DAMAGED),
    "size over the end": (CUT_BOX, DAMAGED),
    "track at the root": (BOMB, DAMAGED),
    "moov in moov": (moov(moov(BOMB)), DAMAGED),
    "moov in udta": (box(b"udta", moov(BOMB)), DAMAGED),
    "moov in hoov": (box(b"hoov", moov(BOMB)[8:]), DAMAGED),
    "moov in free": (box(b"free", moov(BOMB)[8:]), DAMAGED),
    "moov in a QuickTime meta": (box(b"meta", full(b"hdlr", bytes(21)), moov(BOMB)), DAMAGED),
    "moov in an ISO meta": (full(b"meta", full(b"hdlr", bytes(21)), moov(BOMB)), DAMAGED),
    "moov in a meta without hdlr first": (full(b"meta", bytes(8), full(b"hdlr", bytes(21)), moov(BOMB)), DAMAGED),
    "sizes in stsd": (moov(trak(stsd_holds=full(b"stsz", u32(1, MANY)))), DAMAGED),
    "stsd of megabytes": (moov(trak(stsd_holds=bytes(2**20))), DAMAGED),
    "two stsz": (moov(trak(extra=full(b"stsz", u32(1, MANY)))), DAMAGED),
    "stsz longer than its box": (moov(trak(stsz=(0, MANY))), DAMAGED),
    "stsz cut": (moov(box(b"trak", box(b"stsz", u32(0)))), DAMAGED),
    "stz2 longer than its box": (moov(box(b"trak", full(b"stz2", u32(4, MANY)))), DAMAGED),
    "PCM that fits no file": (moov(sound(stts=((MANY, 1),), stsz=(2, MANY))), DAMAGED),
    "PCM chunks": (moov(sound(stsz=(1, 1), stsc=((1, 0x7FFFFFFF, 1),), stco=((0,),) * 8)), "longer than 600 seconds"),
    "PCM chunks backwards": (moov(sound(stsz=(1, 1), stsc=((5, 9, 1), (1, 9, 1)), stco=((0,),) * 8)), DAMAGED),
    "edits": (
        moov(trak(stsz=(1, 3000), stts=((3000, 1),), stsc=((1, 3000, 1),), edits=((3000, 0, 65536),) * 1000)) + bytes(3000),
        "1000 edits",
    ),
    "fragment without fields": (FRAGMENTED + moof(full(b"trun", u32(MANY))), "636000 frames and packets"),
    "fragment longer than its box": (FRAGMENTED + moof(full(b"trun", u32(100_000), u32(1), flags=0x100)), DAMAGED),
    "fragments": (FRAGMENTED + box(b"moof") * 36_001, "36000 fragments"),
    "fragments announced": (full(b"sidx", u32(1, 1000, 0, 0, 65_535)), "36000 fragments"),
    "fragments announced in 64 bits": (box(b"sidx", u32(1 << 24, 1, 1000, 0, 0, 0, 0, 65_535)), "36000 fragments"),
    "tracks": (moov(*[trak()] * (MAX_TRACKS + 1)), "32 tracks"),
    "compressed": (box(b"moov", box(b"cmov")), "compressed"),
    "compressed in free": (box(b"free", box(b"cmov")), "compressed"),
    "encrypted": (moov(trak(extra=full(b"senc", u32(MANY)))), ENCRYPTED),
    "encrypted in stsd": (moov(trak(stsd_holds=box(b"sinf", box(b"schi", full(b"tenc"))))), ENCRYPTED),
    "boxes": (box(b"skip") * (MAX_BOXES + 1), "200000 boxes"),
    "depth": (b"".join(u32(0) + b"udta" for _ in range(500)), DAMAGED),
    **{
        f"{kind} longer than its box": (moov(box(b"trak", full(kind.encode(), u32(3), bytes(size)))), DAMAGED)
        for kind, size in {"stts": 23, "ctts": 23, "stsc": 35, "stco": 11, "co64": 23, "stss": 11, "elst": 35}.items()
    },
}


@pytest.mark.parametrize(("data", "words"), BOMBS.values(), ids=BOMBS)
def test_check_index_refuses(tmp_path, limits, data, words):
    (tmp_path / "bomb.mp4").write_bytes(box(b"ftyp", b"isom", u32(0)) + data)
    with pytest.raises((MediaTooLarge, UnsupportedMedia), match=words):
        check_index(tmp_path / "bomb.mp4", limits)


@pytest.mark.parametrize(
    ("tracks", "bound", "words"),
    [
        ([trak(stsz=(1, 1000))], {"max_frames": 999}, "more than 999 frames"),
        ([trak(stsz=(1, 1000))], {"max_frames": 1000}, None),
        ([sound(stsz=(1, 1000), stts=((1000, 20),))], {"max_frames": 1, "max_duration_s": 0.5}, "501 frames and packets"),
        ([sound(stsz=(1, 1000), stts=((1000, 20),))], {"max_frames": 1, "max_duration_s": 1}, None),
        ([sound(stsz=(1, 1000), stts=((1000, 1),))], {"max_frames": 1, "max_duration_s": 0.5}, None),  # PCM: a thousandth second
        ([trak(b"text", stsz=(1, 1000))], {"max_frames": 1, "max_duration_s": 0.5}, "501 frames and packets"),
        ([trak(stsz=(1, 600))] * 5, {"max_frames": 1000, "max_duration_s": 1}, "2000 frames and packets"),
    ],
)
def test_check_index_keeps_to_the_limits(tmp_path, tracks, bound, words):
    path = tmp_path / "a.mp4"
    path.write_bytes(moov(*tracks) + box(b"mdat", bytes(1000)))
    if words is None:
        check_index(path, MediaLimits(**bound))
        return
    with pytest.raises(MediaTooLarge, match=words):
        check_index(path, MediaLimits(**bound))


@pytest.mark.parametrize(
    ("name", "audio", "movflags"),
    [
        ("a.mp4", "aac", "faststart"),
        ("a.mov", "pcm_s16le", "faststart"),
        ("a.mov", "aac", "faststart"),
        ("a.mp4", "aac", "frag_keyframe+empty_moov"),
        ("a.mp4", "flac", "frag_every_frame+dash"),
        ("a.mp4", "aac", "frag_keyframe+empty_moov+global_sidx"),
    ],
)
def test_check_index_passes_what_encoders_write(make_video, limits, name, audio, movflags):
    check_index(make_video(name, audio=audio, container_options={"movflags": movflags}), limits)


def test_check_index_passes_a_cover_and_free_space(tmp_path, limits):
    art = box(b"covr", box(b"data", u32(13, 0), b"\xff\xd8 stsz moov trak tenc \xff\xd9"))
    tags = box(b"udta", full(b"meta", full(b"hdlr", bytes(4), b"mdir", bytes(13)), box(b"ilst", art)))
    (tmp_path / "a.mp4").write_bytes(moov(tags) + box(b"free", b"stsz" * 10) + box(b"mdat", moov(BOMB)))
    check_index(tmp_path / "a.mp4", limits)


def test_open_media_refuses_a_bomb_before_ffmpeg_reads_it(tmp_path, limits):
    path = tmp_path / "bomb.mp4"
    path.write_bytes(box(b"ftyp", b"isom", u32(0)) + FRAGMENTED + moof(full(b"trun", u32(MANY))) + box(b"mdat"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaTooLarge, match="index"), open_media(path, "video/mp4", limits):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; 700 MB when FFmpeg reads it
