import resource
import zlib

import pytest

from deployments.engines.media.container import open_media
from deployments.engines.media.ebml_tracks import MAX_ELEMENTS, MAX_PLACES, MAX_STRIPPED_BYTES, MaskedFile, check_tracks
from deployments.engines.media.iso_boxes import MAX_TRACKS
from deployments.engines.media.probe import probe
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia

VIDEO, AUDIO, SUBTITLES = 1, 2, 0x11
ZLIB, BZLIB, LZO, STRIP = range(4)
UNKNOWN = b"\x01" + b"\xff" * 7
TRACKS = "1654AE6B"


def element(id_hex, *parts, length=None):
    body = b"".join(parts)
    return bytes.fromhex(id_hex) + (length or (len(body) | 1 << 56).to_bytes(8)) + body


def uint(id_hex, value):
    return element(id_hex, value.to_bytes(2))


HEAD = element("1A45DFA3", element("4282", b"matroska"), uint("4287", 4), uint("4285", 2))


def compression(algorithm=None, settings=b""):
    algo = b"" if algorithm is None else uint("4254", algorithm)
    return element("6D80", element("6240", element("5034", algo, element("4255", settings) if settings else b"")))


ENCRYPTION = element("6D80", element("6240", uint("5033", 1), element("5035", uint("47E1", 5))))
CODECS = {VIDEO: b"V_VP8", AUDIO: b"A_PCM/INT/LIT", SUBTITLES: b"S_TEXT/UTF8"}


def entry(kind, *extra, number=1):
    sound = element("E1", element("B5", bytes.fromhex("473b8000")), uint("9F", 1), uint("6264", 16)) if kind == AUDIO else b""
    return element("AE", uint("D7", number), uint("73C5", number), uint("83", kind), element("86", CODECS[kind]), sound, *extra)


def laced(*frames, number=1):
    """A block of frames of equal length."""
    return element("A3", bytes([0x80 | number]), b"\0\0\x84", bytes([len(frames) - 1]), *frames)


def segment(*parts, length=None):
    return HEAD + element("18538067", *parts, length=length)


def cluster(*blocks, length=None):
    return element("1F43B675", uint("E7", 0), *blocks, length=length)


def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


SHORT, LONG = bytes(MAX_STRIPPED_BYTES), bytes(MAX_STRIPPED_BYTES + 1)
BOMB = element(TRACKS, entry(AUDIO, compression(STRIP, LONG)))
GOOD = element(TRACKS, entry(AUDIO))
SEEK_TO_END = element("114D9B74", element("4DBB", element("53AB", bytes.fromhex(TRACKS)), uint("53AC", 100)))


def overlapping(kind):
    """A hidden track whose type holds other tracks: masking it turns their header stripping into something else."""
    inside = element(TRACKS, entry(kind, compression(STRIP)))
    return element(TRACKS, element("AE", element("83", inside), compression(ZLIB)))


AGAIN = "compresses its video or sound"

REFUSED = {
    "long header": (segment(BOMB), AGAIN),
    "long header of video": (segment(element(TRACKS, entry(VIDEO, compression(STRIP, LONG)))), AGAIN),
    "segment of unknown length": (segment(BOMB, length=UNKNOWN), AGAIN),
    "after a cluster": (segment(SEEK_TO_END, cluster(laced(b"ab")), BOMB), AGAIN),
    "after a cluster of unknown length": (segment(cluster(length=UNKNOWN), BOMB, length=UNKNOWN), AGAIN),
    "behind damage": (segment(element("EC", bytes(9)), b"\0\0\0", BOMB), AGAIN),
    "inside padding": (segment(element("EC", BOMB), b"\0"), AGAIN),
    "outside of the segment": (HEAD + bytes(5) + BOMB, AGAIN),
    "second tracks": (segment(GOOD, BOMB), AGAIN),
    "second track": (segment(element(TRACKS, entry(VIDEO), entry(AUDIO, compression(STRIP, LONG)))), AGAIN),
    "second encoding": (segment(element(TRACKS, entry(AUDIO, compression(STRIP), compression(STRIP, LONG)))), AGAIN),
    "type given twice": (segment(element(TRACKS, entry(AUDIO, uint("83", SUBTITLES), compression(ZLIB)))), AGAIN),
    "damaged after it": (segment(element(TRACKS, entry(AUDIO, compression(ZLIB)), b"\xae\x9f")), AGAIN),
    "cut off after it": (segment(element(TRACKS, entry(AUDIO, compression(ZLIB)), entry(VIDEO)))[:-9], AGAIN),
    "zlib": (segment(element(TRACKS, entry(VIDEO, compression(ZLIB)))), AGAIN),
    "zlib by default": (segment(element(TRACKS, entry(VIDEO, compression()))), AGAIN),
    "no compression named": (segment(element(TRACKS, entry(AUDIO, element("6D80", element("6240"))))), AGAIN),
    "bzlib": (segment(element(TRACKS, entry(AUDIO, compression(BZLIB)))), AGAIN),
    "lzo": (segment(element(TRACKS, entry(AUDIO, compression(LZO)))), AGAIN),
    "encrypted": (segment(element(TRACKS, entry(VIDEO, ENCRYPTION))), "is encrypted"),
    "tracks": (segment(element(TRACKS, *[entry(VIDEO)] * (MAX_TRACKS + 1))), "more than 32 tracks"),
    "tracks in many lists": (segment(*[element(TRACKS, *[entry(VIDEO)] * 3)] * 11), "more than 32 tracks"),
    "elements": (segment(element(TRACKS, element("AE", element("41E4") * MAX_ELEMENTS))), "20000 elements"),
    "lists": (segment(element(TRACKS) * (MAX_PLACES + 1)), "again and again"),
    "tracks without length": (segment(element(TRACKS, entry(VIDEO), length=UNKNOWN), length=UNKNOWN), "has no end"),
    "tracks without length in short": (segment(element(TRACKS, element("EC"), length=b"\xff"), length=UNKNOWN), "has no end"),
    "masking that makes a bomb": (segment(overlapping(AUDIO)), AGAIN),
    "masking that makes a track": (segment(overlapping(SUBTITLES)), "its tracks overlap"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_check_tracks_refuses(tmp_path, data, words):
    path = tmp_path / "bomb.mkv"
    path.write_bytes(data)
    with pytest.raises((MediaTooLarge, UnsupportedMedia), match=words):
        check_tracks(path)


@pytest.mark.parametrize("before", range(5))
def test_check_tracks_searches_across_its_windows(tmp_path, before):
    path = tmp_path / "bomb.mkv"
    path.write_bytes(bytes(2**20 - before) + BOMB)
    with pytest.raises(UnsupportedMedia, match=AGAIN):
        check_tracks(path)


def test_open_media_refuses_a_long_header_before_ffmpeg_reads_it(tmp_path, limits):
    path = tmp_path / "bomb.mkv"
    path.write_bytes(segment(element(TRACKS, entry(AUDIO, compression(STRIP, bytes(200_000)))), cluster(laced(*[b"ab"] * 256))))
    before = peak_kib()
    with pytest.raises(UnsupportedMedia, match=AGAIN), open_media(path, "video/x-matroska", limits):
        pass
    assert peak_kib() - before < 20_000  # 50 MB when FFmpeg reads it


def test_open_media_never_expands_compressed_subtitles(tmp_path, limits):
    tracks = element(TRACKS, entry(AUDIO), entry(SUBTITLES, compression(ZLIB), number=2))
    bomb = laced(*[zlib.compress(bytes(9_900_000), 9)] * 8, number=2)
    path = tmp_path / "bomb.mkv"
    path.write_bytes(segment(tracks, cluster(bomb, laced(b"ab" * 100), bomb, laced(b"cd"))))
    before = peak_kib()
    with open_media(path, "video/x-matroska", limits) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
        assert [bytes(packet) for packet in container.demux()] == [b"ab" * 100, b"cd", b""]
    assert peak_kib() - before < 20_000  # 80 MB when FFmpeg reads them


@pytest.mark.parametrize("stripped", [b"\x00\x01\x02\x03", SHORT], ids=["as mkvmerge does", "longest"])
def test_open_media_reads_a_short_stripped_header(tmp_path, limits, stripped):
    path = tmp_path / "a.mkv"
    path.write_bytes(segment(element(TRACKS, entry(AUDIO, compression(STRIP, stripped))), cluster(laced(b"ab", b"cd"))))
    with open_media(path, "video/x-matroska", limits) as container:
        assert [bytes(packet) for packet in container.demux()] == [stripped + b"ab", stripped + b"cd", b""]


@pytest.mark.parametrize(
    ("name", "codec", "audio", "options"),
    [
        ("a.mkv", "libx264", "aac", {}),
        ("a.mkv", "libx264", "flac", {"live": "1"}),  # clusters and segment of unknown length
        ("a.webm", "libvpx", "libopus", {}),
        ("a.webm", "libvpx", "libopus", {"cues_to_front": "1"}),
    ],
)
def test_check_tracks_passes_what_encoders_write(make_video, limits, name, codec, audio, options):
    path = make_video(name, codec=codec, audio=audio, container_options=options)
    assert check_tracks(path) == ()
    assert (probe(path, limits).frames, probe(path, limits).has_audio) == (10, True)


def test_check_tracks_passes_tracks_by_chance(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(segment(GOOD, cluster(laced(bytes.fromhex(TRACKS) * 10 + b"\xff" * 9 + bytes.fromhex(TRACKS)))))
    assert check_tracks(path) == ()


def test_masked_file_changes_its_places_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    with (tmp_path / "a").open("rb") as file:
        masked = MaskedFile(file, (0, 4, 9))
        assert [masked.read(4), masked.read(4), masked.read(4), masked.read(4)] == [b" 123", b" 567", b"8 ", b""]
        assert (masked.seek(-6, 2), masked.read(2), masked.tell()) == (4, b" 5", 6)
