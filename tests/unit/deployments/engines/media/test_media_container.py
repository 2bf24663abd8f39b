import http.server
import threading

import pytest

from deployments.engines.media.container import MAX_THREADS, codec_threads, open_media, video_stream
from deployments.jobs.errors import UnsupportedMedia


@pytest.fixture
def spy():
    """A server that notes every request for it."""
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/segment.ts", hits
        server.shutdown()
        thread.join()


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{target}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 19076 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


# As if the sniffer had been fooled: the whitelists alone must hold.
@pytest.mark.parametrize("media_type", ["video/mp4", "video/webm", "video/x-msvideo", "image/gif"])
@pytest.mark.parametrize("text", [HLS, CONCAT, DASH, SDP], ids=["hls", "concat", "dash", "sdp"])
@pytest.mark.parametrize("name", ["trap.mp4", "trap.m3u8"])
def test_open_media_never_follows_a_file_to_elsewhere(tmp_path, make_video, limits, spy, media_type, text, name):
    url, hits = spy
    for target in (url, f"file://{make_video('other.mp4')}", "other.mp4"):
        (tmp_path / name).write_text(text.replace("{target}", target))
        with pytest.raises(UnsupportedMedia), open_media(tmp_path / name, media_type, limits):
            pass
    assert hits == []


def test_open_media_turns_errors_of_its_block_into_ours(make_video, limits):
    path = make_video()
    with pytest.raises(UnsupportedMedia, match="cut off or damaged"), open_media(path, "video/mp4", limits) as container:
        container.streams.video[0].codec_context.decode(next(container.demux(container.streams.video[0])))
        for packet in container.demux(container.streams.video[0]):
            broken = bytes(packet)[::-1]
            container.streams.video[0].codec_context.decode(type(packet)(broken))


def test_video_stream_is_none_for_sound(make_sound, limits):
    with open_media(make_sound(), "audio/mp4", limits) as container:
        assert video_stream(container) is None


def test_codec_threads_are_capped():
    assert [codec_threads(asked) for asked in (1, 3, MAX_THREADS, 500)] == [1, 3, MAX_THREADS, MAX_THREADS]
    assert 1 <= codec_threads(0) <= MAX_THREADS
