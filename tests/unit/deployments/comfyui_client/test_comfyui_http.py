"""The HTTP side of one server: what is sent, and what is made of every kind of answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpx
import pytest

from deployments.comfyui_client.config import ClientConfig
from deployments.comfyui_client.http import Accepted, ComfyHttp, HistoryEntry, PromptRefused, QueuedPrompt, ServerInfo, ServerQueue
from deployments.jobs.errors import BackendLost, MediaTooLarge, OutputsLost

URL = "http://secret-host.internal:8188"
EMPTY_QUEUE = {"queue_running": [], "queue_pending": []}
PLACE = {"filename": "a.png", "subfolder": "s", "type": "output"}


class Body(httpx.AsyncByteStream):
    """Bytes as they come over the wire; may break off after them."""

    def __init__(self, data, error):
        self.data, self.error = data, error

    async def __aiter__(self):
        yield self.data
        if self.error is not None:
            raise self.error


@dataclass(frozen=True)
class Reply:
    """What is answered, as often as it is asked for."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks: Exception | None = None

    def to_response(self):
        return httpx.Response(self.status, headers=self.headers, stream=Body(self.body, self.breaks))


class Server:
    """Answers by route and remembers what it was asked."""

    def __init__(self):
        self.answers = {}
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.get((request.method, request.url.path), Reply(404))
        if isinstance(answer, Exception):
            raise answer
        return (answer if isinstance(answer, Reply) else Reply(200, json.dumps(answer).encode())).to_response()

    def bodies(self):
        return [(request.method, request.url.path, json.loads(request.content or b"null")) for request in self.requests]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def http(server):
    http = ComfyHttp("gpu1", URL, ClientConfig(max_answer_bytes=1_500_000))
    await http._client.aclose()
    http._client = httpx.AsyncClient(base_url=URL, transport=httpx.MockTransport(server))
    yield http
    await http.close()


CALLS = {
    "submit": lambda http: http.submit({}, "p", "c", {}),
    "queue": lambda http: http.queue(),
    "history": lambda http: http.history("p"),
    "object_info": lambda http: http.object_info(),
    "info": lambda http: http.info(),
}
ROUTES = {
    "submit": ("POST", "/prompt"),
    "queue": ("GET", "/queue"),
    "history": ("GET", "/history/p"),
    "object_info": ("GET", "/object_info"),
    "info": ("GET", "/system_stats"),
}
TRACEBACK = f"Traceback: {URL}".encode()
STRANGE = {
    "server error": Reply(500, TRACEBACK),
    "not found": Reply(404),
    "redirection": Reply(302, headers={"Location": f"{URL}/login"}),
    "page": Reply(200, b"<html>"),
    "list": Reply(200, b"[]"),
    "nothing": Reply(200),
    "no UTF-8": Reply(200, b'{"\xff": 1}'),
    "too deep": Reply(200, b"[" * 200_000),
    "too long": Reply(200, b'{"a": "' + b"x" * 2_000_000 + b'"}'),
    "compressed": Reply(200, b"{}", {"Content-Encoding": "gzip"}),
    "broken off": Reply(200, b"{", breaks=httpx.ReadError(f"{URL} went away")),
    "refused": httpx.ConnectError(f"cannot connect to {URL}"),
    "silent": httpx.ReadTimeout(""),
    "reset at once": AttributeError("getpeername"),  # as anyio says it
    "no HTTP": httpx.RemoteProtocolError("bad"),
}


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize("call", CALLS)
async def test_whatever_is_no_answer_of_comfyui_is_a_lost_backend_named_without_its_address(http, server, call, answer):
    server.answers[ROUTES[call]] = STRANGE[answer]
    with pytest.raises(BackendLost, match=r"^backend gpu1 ") as raised:
        await CALLS[call](http)
    assert "secret-host" not in str(raised.value)


async def test_a_prompt_is_sent_under_the_id_and_the_client_that_it_was_given(http, server):
    server.answers["POST", "/prompt"] = {"prompt_id": "p", "number": 7, "node_errors": {}}
    assert await http.submit({"1": {}}, "p", "c", {"preview_method": "none"}) == Accepted(7, {})
    sent = {"prompt": {"1": {}}, "prompt_id": "p", "client_id": "c", "extra_data": {"preview_method": "none"}}
    assert server.bodies() == [("POST", "/prompt", sent)]


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ({"number": 2.5, "node_errors": {"9": {"errors": []}}}, Accepted(2.5, {"9": {"errors": []}})),
        ({"number": "x", "node_errors": []}, Accepted(0, {})),
        ({}, Accepted(0, {})),
    ],
)
async def test_an_accepted_prompt_may_leave_outputs_out(http, server, answer, accepted):
    server.answers["POST", "/prompt"] = answer
    assert await http.submit({}, "p", "c", {}) == accepted


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (Reply(400, b'{"error": {"type": "x"}, "node_errors": {}}'), {"error": {"type": "x"}, "node_errors": {}}),
        (Reply(400, b"<html>"), {}),
        (Reply(400, b"[1]"), {}),
    ],
)
async def test_a_refused_prompt_carries_what_the_server_said(http, server, answer, body):
    server.answers["POST", "/prompt"] = answer
    with pytest.raises(PromptRefused) as raised:
        await http.submit({}, "p", "c", {})
    assert raised.value.body == body


async def test_the_queue_tells_whose_its_prompts_are(http, server):
    server.answers["GET", "/queue"] = {
        "queue_running": [[0, "r", {}, {"client_id": "c"}, ["9"]]],
        "queue_pending": [[1, "p1", {}, {}, []], [2, "p2", {}, {"client_id": 5}, [], "more"], [3, "p3"]],
    }
    queue = await http.queue()
    assert queue == ServerQueue((QueuedPrompt("r", "c"),), (QueuedPrompt("p1", None), QueuedPrompt("p2", None), QueuedPrompt("p3", None)))
    assert ("r" in queue, "p3" in queue, "c" in queue) == (True, True, False)


@pytest.mark.parametrize("odd", [None, {}, "x", 3, [None], [[]], [[1]], [[1, 2]], [{"prompt_id": "p"}], [[1, None, {}]]])
async def test_odd_entries_of_the_queue_are_skipped(http, server, odd):
    server.answers["GET", "/queue"] = {"queue_running": odd, "queue_pending": [*(odd if isinstance(odd, list) else []), [1, "p"]]}
    assert await http.queue() == ServerQueue((), (QueuedPrompt("p", None),))


async def test_a_prompt_that_ended_is_in_the_history_with_its_messages(http, server):
    said = [["execution_start", {"n": 1}], ["execution_error", {"n": 2}], ["execution_error", {"n": 3}]]
    status = {"status_str": "error", "completed": False, "messages": said}
    server.answers["GET", "/history/p"] = {"p": {"outputs": {"9": {"images": []}}, "status": status}}
    entry = await http.history("p")
    assert entry == HistoryEntry({"9": {"images": []}}, completed=False, messages=tuple((kind, data) for kind, data in said))
    assert (entry.message("execution_error"), entry.message("execution_success")) == ({"n": 3}, None)


@pytest.mark.parametrize(
    ("answer", "entry"),
    [
        ({}, None),
        ({"other": {"outputs": {}}}, None),
        ({"p": None}, None),
        ({"p": {}}, HistoryEntry({}, completed=False, messages=())),
        ({"p": {"outputs": [], "status": []}}, HistoryEntry({}, completed=False, messages=())),
        ({"p": {"outputs": None, "status": None}}, HistoryEntry({}, completed=False, messages=())),
        ({"p": {"status": {"completed": True, "messages": None}}}, HistoryEntry({}, completed=True, messages=())),
        (
            {"p": {"status": {"completed": "yes", "messages": [None, [], ["a"], ["a", 1], ["a", {}, 2], ["b", {}]]}}},
            HistoryEntry({}, completed=False, messages=(("b", {}),)),
        ),
    ],
)
async def test_odd_histories_are_read_as_far_as_they_go(http, server, answer, entry):
    server.answers["GET", "/history/p"] = answer
    assert await http.history("p") == entry


async def test_cancel_is_one_call_where_there_is_a_jobs_api(http, server):
    server.answers["POST", "/api/jobs/p/cancel"] = {"cancelled": True}
    await http.cancel("p")
    await http.cancel("p")
    assert server.bodies() == [("POST", "/api/jobs/p/cancel", None)] * 2


@pytest.mark.parametrize("status", [404, 405])
async def test_cancel_without_a_jobs_api_names_the_prompt_to_both_routes_and_asks_for_the_api_once(http, server, status):
    server.answers["POST", "/api/jobs/p/cancel"] = Reply(status)
    server.answers["POST", "/queue"] = server.answers["POST", "/interrupt"] = Reply(200)
    server.answers["GET", "/queue"] = EMPTY_QUEUE | {"queue_running": [[0, "p", {}, {}, []]]}
    by_hand = [("POST", "/queue", {"delete": ["p"]}), ("GET", "/queue", None), ("POST", "/interrupt", {"prompt_id": "p"})]
    await http.cancel("p")
    assert server.bodies() == [("POST", "/api/jobs/p/cancel", None), *by_hand]
    server.requests.clear()
    await http.cancel("p")
    assert server.bodies() == by_hand


async def test_cancel_asks_for_the_jobs_api_again_after_an_error_of_the_server(http, server):
    server.answers["POST", "/api/jobs/p/cancel"] = Reply(500)
    server.answers["POST", "/queue"], server.answers["GET", "/queue"] = Reply(200), EMPTY_QUEUE
    for _ in range(2):
        server.requests.clear()
        await http.cancel("p")
        assert [request.url.path for request in server.requests] == ["/api/jobs/p/cancel", "/queue", "/queue"]


@pytest.mark.parametrize("queue", [{}, {"queue_running": []}, {"queue_pending": []}, {"error": "x"}])
async def test_an_answer_without_a_queue_is_no_empty_queue(http, server, queue):
    server.answers["GET", "/queue"] = queue
    with pytest.raises(BackendLost, match="does not answer as a ComfyUI server does"):
        await http.queue()


async def test_an_input_that_is_too_long_is_the_clients_fault(http, server, tmp_path):
    server.answers["POST", "/upload/image"] = Reply(413)
    (tmp_path / "in").write_bytes(b"pixels")
    with pytest.raises(MediaTooLarge, match=r"^backend gpu1 takes no input as long as this one"):
        await http.upload(tmp_path / "in", "hash.png", "image/png")


@pytest.mark.parametrize("running", [[], [[0, "somebody-elses", {}, {}, []]]])
async def test_cancel_interrupts_nobody_else(http, server, running):
    server.answers["POST", "/queue"] = Reply(200)
    server.answers["GET", "/queue"] = {"queue_running": running, "queue_pending": []}
    await http.cancel("p")
    assert "/interrupt" not in [request.url.path for request in server.requests]


async def test_cancel_at_a_server_that_is_away_is_a_lost_backend(http, server):
    server.answers["POST", "/api/jobs/p/cancel"] = httpx.ConnectError(URL)
    with pytest.raises(BackendLost, match=r"^backend gpu1 does not answer \(ConnectError\)$"):
        await http.cancel("p")


@pytest.mark.parametrize(
    ("system", "info"),
    [
        ({"comfyui_version": "0.33.0", "deploy_environment": "local-git"}, ServerInfo("0.33.0", fake=False)),
        ({"comfyui_version": "0.33.0", "deploy_environment": "atelier-fake"}, ServerInfo("0.33.0", fake=True)),
        ({"comfyui_version": 3}, ServerInfo(None, fake=False)),
        (None, ServerInfo(None, fake=False)),
    ],
)
async def test_a_server_tells_its_version_and_whether_it_is_fake(http, server, system, info):
    server.answers["GET", "/system_stats"] = {"system": system, "devices": []}
    assert await http.info() == info


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"name": "a.png", "subfolder": "", "type": "input"}, "a.png"),
        ({"name": "a.png", "subfolder": "clip space", "type": "input"}, "clip space/a.png"),
        ({"name": "a (1).png"}, "a (1).png"),
        ({"name": "a.png", "subfolder": None}, "a.png"),
        ({"name": "a.png", "subfolder": 5}, "a.png"),
    ],
)
async def test_an_upload_returns_the_name_that_nodes_load_it_by(http, server, tmp_path, answer, name):
    server.answers["POST", "/upload/image"] = answer
    (tmp_path / "in").write_bytes(b"pixels")
    assert await http.upload(tmp_path / "in", "hash.png", "image/png") == name
    (request,) = server.requests
    for part in (b'name="overwrite"\r\n\r\ntrue', b'name="type"\r\n\r\ninput', b'filename="hash.png"', b"image/png", b"pixels"):
        assert part in request.content


@pytest.mark.parametrize("answer", [{}, {"name": None}, Reply(200, b"ok"), Reply(302), Reply(500)])
async def test_an_upload_that_is_not_taken_is_a_lost_backend(http, server, tmp_path, answer):
    server.answers["POST", "/upload/image"] = answer
    (tmp_path / "in").write_bytes(b"pixels")
    with pytest.raises(BackendLost, match=r"^backend gpu1 "):
        await http.upload(tmp_path / "in", "hash.png", "image/png")


async def test_a_download_is_written_whole(http, server, tmp_path):
    server.answers["GET", "/view"] = Reply(200, b"0123456789")
    assert await http.download(PLACE, tmp_path / "out", 10) == 10
    assert (tmp_path / "out").read_bytes() == b"0123456789"
    assert dict(server.requests[0].url.params) == PLACE


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Reply(404), OutputsLost, "backend gpu1 no longer has the file of an output"),
        (Reply(500, TRACEBACK), BackendLost, "backend gpu1 answered 500"),
        (Reply(302, headers={"Location": f"{URL}/login"}), BackendLost, "backend gpu1 answered 302"),
        (Reply(200, b"01234567890"), MediaTooLarge, "the outputs of the job are longer than is taken"),
        (Reply(200, b"0123", breaks=httpx.ReadError(URL)), BackendLost, r"backend gpu1 does not answer \(ReadError\)"),
        (httpx.ConnectTimeout(URL), BackendLost, r"backend gpu1 does not answer \(ConnectTimeout\)"),
        (Reply(200, b"0123", {"Content-Encoding": "gzip"}), BackendLost, "backend gpu1 does not answer"),
    ],
)
async def test_a_download_that_fails_leaves_no_file(http, server, tmp_path, answer, error, message):
    server.answers["GET", "/view"] = answer
    (tmp_path / "out").write_bytes(b"from before")
    with pytest.raises(error, match=f"^{message}"):
        await http.download(PLACE, tmp_path / "out", 10)
    assert list(tmp_path.iterdir()) == []


async def test_results_are_forgotten_and_models_stay(http, server):
    await http.forget_results()
    assert server.bodies() == [("POST", "/free", {"unload_models": False, "free_memory": True})]


async def test_no_origin_is_sent_and_the_environments_proxies_are_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    http = ComfyHttp("gpu1", f"{URL}/", ClientConfig(connect_timeout_s=3, request_timeout_s=4))
    assert (str(http._client.base_url).rstrip("/"), http._client.trust_env, http._client.follow_redirects) == (URL, False, False)
    assert (http._client.timeout.connect, http._client.timeout.read) == (3, 4)
    assert "origin" not in http._client.headers
    await http.close()


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda http: http.model_folders(), "/models"),
        (lambda http: http.models("a b/c"), "/models/a%20b%2Fc"),
        (lambda http: http.embeddings(), "/embeddings"),
    ],
)
async def test_names_are_read_as_a_list(http, server, call, path):
    server.answers["GET", unquote(path)] = Reply(200, b'["a", 1, "b"]')
    assert await call(http) == ("a", "b")
    assert server.requests[-1].url.raw_path.decode() == path


@pytest.mark.parametrize("answer", [Reply(200, b"{}"), Reply(404), Reply(200, b"")])
async def test_what_is_no_list_of_names_is_a_lost_backend(http, server, answer):
    server.answers["GET", "/models"] = answer
    with pytest.raises(BackendLost):
        await http.model_folders()


async def test_free_says_what_to_let_go_of(http, server):
    server.answers["POST", "/free"] = Reply(200)
    await http.free(unload_models=True, free_memory=False)
    assert server.bodies()[-1] == ("POST", "/free", {"unload_models": True, "free_memory": False})
    server.answers["POST", "/free"] = Reply(500)
    with pytest.raises(BackendLost):
        await http.free(unload_models=True, free_memory=False)
