"""What the doctor says of an object store."""

import socket

from deployments.storage.factory import StorageConfig
from serve_app.doctor import check_storage


def test_a_bucket_that_cannot_be_reached_is_a_finding_that_says_what_to_do(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "knows-nothing")
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    found = check_storage(StorageConfig.model_validate({"provider": "s3", "s3": {"bucket": "results", "endpoint": endpoint}}))
    assert (found.name, found.ok) == ("storage", False)
    assert "bucket results" in found.text
    assert "check the endpoint, DNS and the firewall" in found.text
    assert "knows-nothing" not in found.text
