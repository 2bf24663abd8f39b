"""The client: references, uploads, problems, event streams that break, downloads that are whole or not there."""

from __future__ import annotations

import hashlib
import json

import httpx
import pytest

from serve_app.client import ApiError, Client, local_file, read_events

JOB_ID = "5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"
BYTES = b"picture" * 50_000
OUTPUT = {"file_id": "f", "url": "http://elsewhere/v1/files/f", "sha256": hashlib.sha256(BYTES).hexdigest()}


def client_of(*answers, **options):
    """Return a client whose requests get these answers in turn, and the requests that it has sent."""
    left, sent = list(answers), []

    def answer(request):
        request.read()
        sent.append(request)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return Client("http://atelier.test/", transport=httpx.MockTransport(answer), reconnect_s=0, **options), sent


def problem(status, code, detail, **more):
    return httpx.Response(status, json={"detail": detail, "code": code, "status": status, **more})


def event(number, status, kind="state", **more):
    view = {"id": f"1-{number}", "type": kind, "job_id": JOB_ID, "status": status, "attempt": 1, **more}
    return f"event: {kind}\nid: {view['id']}\ndata: {json.dumps(view, ensure_ascii=False)}\n\n".encode()


class BrokenStream(httpx.SyncByteStream):
    def __init__(self, *chunks):
        self._chunks = chunks

    def __iter__(self):
        yield from self._chunks
        raise httpx.ReadError("connection reset")


def stream(*chunks):
    return httpx.Response(200, stream=BrokenStream(*chunks))


def test_upload_streams_the_file_and_counts_its_bytes(tmp_path):
    (tmp_path / "me.jpg").write_bytes(BYTES)
    client, sent = client_of(httpx.Response(201, json={"file_id": "f"}))
    counted = []
    assert client.to_reference(str(tmp_path / "me.jpg"), counted.append) == "f"
    assert (sum(counted), max(counted) < len(BYTES)) == (len(BYTES), True)
    assert BYTES in sent[0].content
    assert b'filename="me.jpg"' in sent[0].content


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://elsewhere/v1/files/f?expires=9&signature=s", "/v1/files/f?expires=9&signature=s"),
        ("https://proxy.example/below/v1/files/f", "/v1/files/f"),
        ("https://media.example.com/artifacts/a.png", "https://media.example.com/artifacts/a.png"),
    ],
)
def test_download_asks_our_server_unless_files_lie_elsewhere(tmp_path, url, asked):
    client, sent = client_of(httpx.Response(200, content=BYTES))
    client.download(OUTPUT | {"url": url}, tmp_path / "a.png")
    assert str(sent[0].url) == (asked if "://" in asked else f"{client.server_url}{asked}")


def test_download_goes_where_the_bucket_sends_files_itself(tmp_path):
    client, sent = client_of(httpx.Response(307, headers={"Location": "https://bucket.example/a"}), httpx.Response(200, content=BYTES))
    assert client.download(OUTPUT, tmp_path / "a.png").read_bytes() == BYTES
    assert str(sent[1].url) == "https://bucket.example/a"


@pytest.mark.parametrize("reference", ["https://example.com/a.png", JOB_ID])
def test_to_reference_leaves_urls_and_ids_as_they_are(reference):
    client, sent = client_of()
    assert (client.to_reference(reference), sent) == (reference, [])


def test_to_reference_refuses_what_is_nothing():
    with pytest.raises(ApiError, match=r"no\.jpg is no file here"):
        client_of()[0].to_reference("no.jpg")


def test_a_problem_becomes_one_sentence_with_its_code():
    errors = [{"pointer": "/target", "detail": "Field required"}]
    client, _ = client_of(problem(422, "invalid_input", "the request is not valid", errors=errors))
    with pytest.raises(ApiError) as failed:
        client.get(JOB_ID)
    assert (str(failed.value), failed.value.code, failed.value.status) == (
        "the request is not valid (/target: Field required)",
        "invalid_input",
        422,
    )


def test_a_workflow_that_is_refused_carries_its_nodes_instead_of_repeating_them():
    node = {"comfy_node": "", "title": "", "input": "width", "kind": "value_bigger_than_max", "message": "width is 9999"}
    errors = [{"pointer": "/inputs/width", "detail": "width is 9999"}]
    client, _ = client_of(problem(422, "workflow_invalid", "width is 9999", errors=errors, nodes=[node]))
    with pytest.raises(ApiError) as failed:
        client.submit({"kind": "comfyui"})
    assert (str(failed.value), failed.value.nodes) == ("width is 9999", (node,))


@pytest.mark.parametrize(
    ("name", "path"), [("text-to-image@3", "/v1/workflows/text-to-image@3"), ("../jobs?x", "/v1/workflows/..%2Fjobs%3Fx")]
)
def test_workflow_is_asked_for_by_its_name_whatever_that_is(name, path):
    client, sent = client_of(httpx.Response(200, json={"name": name}))
    assert client.workflow(name) == {"name": name}
    assert sent[0].url.raw_path.decode() == path


@pytest.mark.parametrize("text", ["no.png", ".", "x" * 5000, "~nobody-of-that-name/a.png", "https://example.com/a.png"])
def test_local_file_is_none_where_there_is_no_file(text):
    assert local_file(text) is None


def test_an_answer_of_somebody_else_is_named():
    client, _ = client_of(httpx.Response(502, text="<html>"))
    with pytest.raises(ApiError, match="the server answered 502 Bad Gateway"):
        client.get(JOB_ID)


def test_a_server_that_is_not_there_is_named():
    client, _ = client_of(httpx.ConnectError("refused"))
    with pytest.raises(ApiError, match=r"no answer from http://atelier\.test \(refused\)"):
        client.get(JOB_ID)


@pytest.mark.parametrize("lost", [httpx.ReadError("reset"), problem(503, "store_unavailable", "later")])
def test_submit_asks_once_more_under_the_same_key(lost):
    client, sent = client_of(lost, httpx.Response(202, json={"id": JOB_ID}))
    assert client.submit({"kind": "faceswap"}) == {"id": JOB_ID}
    first, second = (request.headers["Idempotency-Key"] for request in sent)
    assert first == second


def test_submit_does_not_repeat_what_was_refused():
    client, sent = client_of(problem(429, "queue_full", "full"))
    with pytest.raises(ApiError, match="full"):
        client.submit({"kind": "faceswap"})
    assert len(sent) == 1


def test_events_go_on_after_the_last_one_when_the_stream_breaks():
    client, sent = client_of(
        stream(event(1, "queued"), event(2, "running"), event(3, "running")[:20]),
        httpx.ConnectError("restarting"),
        problem(503, "store_unavailable", "later"),
        stream(event(3, "running", "progress"), event(4, "succeeded")),
    )
    seen = [item["id"] for item in client.events(JOB_ID)]
    assert seen == ["1-1", "1-2", "1-3", "1-4"]
    assert [request.headers.get("Last-Event-ID") for request in sent] == [None, "1-2", "1-2", "1-2"]


def test_events_end_when_nothing_came_after_the_last_one():
    client, _ = client_of(stream(event(1, "queued")), httpx.Response(204))
    assert [item["status"] for item in client.events(JOB_ID)] == ["queued"]


@pytest.mark.parametrize(
    ("answers", "options", "message"),
    [
        ([problem(404, "job_not_found", "there is no job")], {}, "there is no job"),
        ([httpx.ConnectError("refused")], {}, "no answer"),
        ([stream(event(1, "queued")), httpx.ConnectError("gone for good")], {"patience_s": 0}, "connection reset|gone for good"),
        ([stream(event(1, "queued")), problem(404, "job_not_found", "deleted meanwhile")], {}, "deleted meanwhile"),
    ],
)
def test_events_give_up_where_trying_again_is_of_no_use(answers, options, message):
    client, _ = client_of(*answers, **options)
    with pytest.raises(ApiError, match=message):
        list(client.events(JOB_ID))


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_read_events_does_not_care_where_chunks_end(size):
    text = "retry: 2000\n\n: ping\n\nid: 1\r\ndata: a\u2028ü\r\n\r\nevent: x\ndata:b\ndata: c\n\ndata: cut off".encode()
    chunks = (text[start : start + size] for start in range(0, len(text), size))
    assert list(read_events(chunks)) == ["a\u2028ü", "b\nc"]


def test_download_writes_the_whole_file(tmp_path):
    client, sent = client_of(httpx.Response(200, content=BYTES))
    counted = []
    path = client.download(OUTPUT, tmp_path / "new" / "out.jpg", counted.append)
    assert (path.read_bytes(), sum(counted), sent[0].url.path) == (BYTES, len(BYTES), "/v1/files/f")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("answer", [httpx.Response(200, content=b"other"), stream(BYTES[:1000]), problem(404, "file_not_found", "gone")])
def test_download_leaves_nothing_behind_when_it_fails(tmp_path, answer):
    client, _ = client_of(answer)
    (tmp_path / "out.jpg").write_bytes(b"before")
    with pytest.raises(ApiError):
        client.download(OUTPUT, tmp_path / "out.jpg")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out.jpg": b"before"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200, json={"engines": []}), True),
        (httpx.Response(200, text="hello"), False),
        (httpx.Response(404, json={"engines": []}), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_is_atelier_looks_at_what_answers(answer, expected):
    assert client_of(answer)[0].is_atelier() is expected
