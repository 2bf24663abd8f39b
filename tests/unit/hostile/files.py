"""Files that mean harm, or that are broken in ways that harm: each made by code, small here and large only in what it claims.

Those that name an address name ``CANARY``, in whose place a test puts its own.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import av
import numpy as np
from PIL import Image

CANARY = b"127.0.0.1:65521"
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
FTYP = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42")
EBML = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webmB\x87\x81\x04B\x85\x81\x02"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, *, depth: int = 8, color: int = 2, interlace: int = 0, data: bytes = bytes(64), more: bytes = b""
) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))
    return PNG_HEAD + head + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (48, 32), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.effect_noise((32, 32), spread).convert("RGB") for spread in (20, 60, 90)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def video(frames: int = 10, rate: int = 25, size: tuple[int, int] = (64, 48), container: str = "mp4") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as made:
        stream = made.add_stream("libx264", rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(frames):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), n % 256, np.uint8), format="rgb24")))
        made.mux(stream.encode(None))
    return buffer.getvalue()


def box(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + name + data


def jpeg_with_sides(width: int, height: int) -> bytes:
    data = bytearray(picture("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_scans(n: int) -> bytes:
    data = picture("JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    end = data.index(b"\xff\xda", at + 2)
    return data[:at] + data[at:end] * n + data[end:]


def exif_that_points_at_itself() -> bytes:
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    payload = b"Exif\x00\x00" + tiff
    data = picture("JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def avi_with_playlist(place: bytes) -> bytes:
    """An AVI whose subtitle track holds a file of its own (GAB2), which FFmpeg opens by a demuxer of its choice: a playlist."""
    playlist = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\n" + place + b"\n#EXT-X-ENDLIST\n"
    gab2 = b"GAB2\x00\x02\x00" + struct.pack("<I", 0) + b"\x04\x00" + struct.pack("<I", len(playlist)) + playlist
    form = riff(b"strf", bytes(40))
    track = riff(b"strh", b"txts" + bytes(52)) + form
    main = riff(b"avih", struct.pack("<14I", 40_000, 0, 0, 16, 1, 0, 1, 0, 8, 8, 0, 0, 0, 0))
    lists = riff(b"LIST", b"hdrl" + main + riff(b"LIST", b"strl" + track)) + riff(b"LIST", b"movi" + riff(b"00tx", gab2))
    return riff(b"RIFF", b"AVI " + lists)


def riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def film_of_tracks(tracks: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as made:
        for stream in [made.add_stream("pcm_s16le", 8000) for _ in range(tracks)]:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
            frame.sample_rate = 8000
            made.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def photo_of_two(broken: bool = False) -> bytes:
    """A JPEG with a second picture behind it, as telephones write them."""
    buffer = io.BytesIO()
    first, second = (Image.effect_noise((48, 32), spread).convert("RGB") for spread in (60, 20))
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    return patched(buffer.getvalue(), b"MPF\x00", 8, b"\xff\xff\xff\xff") if broken else buffer.getvalue()


def gif(width: int, height: int, frames: int) -> bytes:
    frame = b"\x21\xf9\x04\x00\x00\x00\x00\x00" + b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00\x00\x00\x00\xff\xff\xff" + frame * frames + b";"


def webp_canvas(side: int) -> bytes:
    sides = (side - 1).to_bytes(3, "little") * 2
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x00\x00\x00\x00" + sides + picture("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav(channels: int = 1, rate: int = 8000, bits: int = 16, data: bytes = bytes(8000), claimed: int | None = None) -> bytes:
    size = len(data) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * bits // 8 & 0xFFFFFFFF, channels * bits // 8, bits)
    return (
        b"RIFF"
        + struct.pack("<I", (size + 36) & 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size & 0xFFFFFFFF)
        + data
    )


def nested(name: bytes, depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(name, data)
    return data


def mp4_that_reads_elsewhere(place: bytes) -> bytes:
    """A film whose samples lie in another file: the data reference says so and is not marked as its own."""
    data = video()
    own = struct.pack(">I4sI", 12, b"url ", 1)
    assert own in data
    other = box(b"url ", struct.pack(">I", 0), place + b"\x00")
    grown = len(other) - len(own)
    made = bytearray(data.replace(own, other))
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = made.index(name) - 4
        made[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", made, at)[0] + grown)
    return bytes(made)


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(50 * 2**20))
    return buffer.getvalue()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def patched(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(name) + offset
    return data[:at] + value + data[at + len(value) :]


FILES: dict[str, Callable[[], bytes]] = {
    # no media at all
    "empty": lambda: b"",
    "one-byte": lambda: b"\x89",
    "text": lambda: b"plain words, nothing else\n" * 40,
    "zeros": lambda: bytes(2**20),
    "random": lambda: np.random.default_rng(1).bytes(100_000),
    "html": lambda: b"<!DOCTYPE html><script>alert(1)</script>",
    "svg-script": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "xml-entity": lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "shell": lambda: b"#!/bin/sh\nrm -rf /\n",
    "elf": lambda: b"\x7fELF\x02\x01\x01" + bytes(200),
    "exe": lambda: b"MZ" + bytes(200),
    "pdf": lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "zip-bomb": zip_bomb,
    "gzip-bomb": lambda: gzip.compress(bytes(20 * 2**20)),
    "json": lambda: b'{"a": 1}',
    # playlists, which make a player read other files
    "hls-file": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "hls-http": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:65521/a.ts\n#EXT-X-ENDLIST\n",
    "hls-behind-media": lambda: FTYP + b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
    "dash": lambda: b'<?xml version="1.0"?><MPD><Period><BaseURL>http://127.0.0.1:65521/</BaseURL></Period></MPD>',
    "sdp": lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "concat": lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "asx": lambda: b'<asx version="3.0"><entry><ref href="http://127.0.0.1:65521/a.wmv"/></entry></asx>',
    # PNG
    "png-huge": lambda: png(30_000, 30_000),
    "png-largest": lambda: png(2**31 - 1, 2**31 - 1),
    "png-strip": lambda: png(40_000, 1),
    "png-no-width": lambda: png(0, 10),
    "png-head-alone": lambda: PNG_HEAD,
    "png-cut-in-header": lambda: picture("PNG")[:20],
    "png-cut-in-data": lambda: cut(picture("PNG"), 0.5),
    "png-wrong-checksum": lambda: patched(picture("PNG"), b"IHDR", 17, b"\x00\x00\x00\x00"),
    "png-data-bomb": lambda: png(8, 8, data=bytes(200 * 2**20)),
    "png-text-bomb": lambda: png(8, 8, data=bytes(8 * 25), more=chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(200 * 2**20)))),
    "png-profile-bomb": lambda: png(8, 8, data=bytes(8 * 25), more=chunk(b"iCCP", b"a\x00\x00" + zlib.compress(bytes(200 * 2**20)))),
    "png-many-chunks": lambda: png(8, 8, data=bytes(8 * 25), more=chunk(b"tEXt", b"a\x00b") * 100_000),
    "png-no-palette": lambda: png(8, 8, color=3, data=bytes(8 * 9)),
    "png-nonsense-depth": lambda: png(8, 8, depth=7),
    "png-animated": lambda: animated("PNG"),
    "png-with-html": lambda: picture("PNG") + b"<script>alert(1)</script>",
    "png-with-zip": lambda: picture("PNG") + zip_bomb(),
    "png-16-bit": lambda: png(8, 8, depth=16, color=0, data=bytes(8 * 17)),
    # JPEG
    "jpeg-huge": lambda: jpeg_with_sides(65_500, 65_500),
    "jpeg-strip": lambda: jpeg_with_sides(65_500, 8),
    "jpeg-no-height": lambda: jpeg_with_sides(48, 0),
    "jpeg-head-alone": lambda: b"\xff\xd8\xff\xe0",
    "jpeg-cut": lambda: cut(picture("JPEG"), 0.6),
    "jpeg-no-tables": lambda: picture("JPEG").replace(b"\xff\xc4", b"\xff\xfe"),
    "jpeg-scan-bomb": lambda: jpeg_of_scans(3000),
    "jpeg-exif-loop": exif_that_points_at_itself,
    "jpeg-with-zip": lambda: picture("JPEG") + zip_bomb(),
    "jpeg-cmyk": lambda: picture("JPEG", "CMYK"),
    "jpeg-exif-cut": lambda: patched(picture("JPEG", exif=b"Exif\x00\x00" + bytes(64)), b"\xff\xe1", 2, b"\xff\xff"),
    "jpeg-of-two": photo_of_two,
    "jpeg-of-two-broken": lambda: photo_of_two(broken=True),
    "jpeg-with-html": lambda: picture("JPEG", comment=b"<html><script>alert(1)</script>"),
    "html-with-png": lambda: b"<html><script>alert(1)</script>" + picture("PNG"),
    "zip-with-jpeg": lambda: zip_bomb() + picture("JPEG"),
    # GIF, which is a video to us
    "gif-million-frames": lambda: gif(1, 1, 40_000),
    "gif-huge": lambda: gif(65_535, 65_535, 1),
    "gif-no-frames": lambda: gif(8, 8, 0),
    "gif-cut": lambda: cut(animated("GIF"), 0.4),
    # WebP
    "webp-animated": lambda: animated("WEBP"),
    "webp-huge-canvas": lambda: webp_canvas(16_384),
    "webp-cut": lambda: cut(picture("WEBP"), 0.5),
    "webp-lying-length": lambda: patched(picture("WEBP"), b"RIFF", 4, b"\xff\xff\xff\xff"),
    # formats that no decoder of ours opens
    "tiff": lambda: picture("TIFF"),
    "bmp": lambda: picture("BMP"),
    "ico": lambda: picture("ICO"),
    "avif": lambda: picture("AVIF"),
    "jpeg2000": lambda: picture("JPEG2000"),
    "psd": lambda: b"8BPS\x00\x01" + bytes(100),
    "dds": lambda: b"DDS " + bytes(124),
    # MP4
    "mp4-head-alone": lambda: FTYP,
    "mp4-no-streams": lambda: FTYP + box(b"moov", box(b"mvhd", bytes(100))),
    "mp4-reads-a-file": lambda: mp4_that_reads_elsewhere(b"file:///etc/passwd"),
    "mp4-reads-http": lambda: mp4_that_reads_elsewhere(b"http://127.0.0.1:65521/a.mp4"),
    "mp4-cut-in-half": lambda: cut(video(60), 0.5),
    "mp4-box-of-exabytes": lambda: FTYP + struct.pack(">I4sQ", 1, b"moov", 2**62),
    "mp4-box-of-nothing": lambda: FTYP + struct.pack(">I4s", 4, b"moov") + bytes(100),
    "mp4-nested": lambda: FTYP + nested(b"moov", 3000),
    "mp4-nested-tracks": lambda: FTYP + box(b"moov", nested(b"trak", 3000)),
    "mp4-with-html": lambda: video() + b"<html><script>alert(1)</script>",
    "mp4-thousand-fps": lambda: video(2100, 1000, (32, 32)),
    "mp4-too-long": lambda: video(700, 1, (32, 32)),
    "mp4-wide": lambda: video(2, 25, (4200, 2200)),
    "mp4-samples-damaged": lambda: patched(video(60), b"mdat", 60, np.random.default_rng(6).bytes(500)),
    # Matroska
    "mkv-head-alone": lambda: EBML,
    "mkv-element-of-exabytes": lambda: EBML + b"\x18S\x80g\x01\x7f\xff\xff\xff\xff\xff\xff\xff" + bytes(50),
    "mkv-cut": lambda: cut(video(60, container="matroska"), 0.3),
    # sound
    "wav-lying-length": lambda: wav(claimed=2**32 - 1),
    "wav-no-channels": lambda: wav(channels=0),
    "wav-no-rate": lambda: wav(rate=0),
    "wav-head-alone": lambda: wav()[:20],
    "wav-all-channels": lambda: wav(channels=30_000),
    "wav-empty": lambda: wav(data=b""),
    "mp3-garbage": lambda: b"ID3\x04\x00\x00\x00\x00\x00\x00" + np.random.default_rng(2).bytes(5000),
    "mp3-tag-of-megabytes": lambda: b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(1000),
    "flac-garbage": lambda: b"fLaC" + np.random.default_rng(3).bytes(5000),
    "ogg-garbage": lambda: b"OggS" + np.random.default_rng(4).bytes(5000),
    "avi-garbage": lambda: b"RIFF\x00\x10\x00\x00AVI LIST" + np.random.default_rng(5).bytes(5000),
    "avi-playlist-in-subtitles": lambda: avi_with_playlist(b"http://127.0.0.1:65521/a.ts"),
    "mov-reference-film": lambda: (
        FTYP.replace(b"isom", b"qt  ")
        + box(
            b"moov", box(b"rmra", box(b"rmda", box(b"rdrf", bytes(4), b"url ", struct.pack(">I", 29), b"http://127.0.0.1:65521/a.mov\x00")))
        )
    ),
    "mkv-many-tracks": lambda: film_of_tracks(120),
    "asf-garbage": lambda: b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel" + bytes(500),
}
