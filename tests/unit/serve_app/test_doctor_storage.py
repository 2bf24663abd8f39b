"""What the doctor says of an object store."""

import socket

import pytest

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


def test_google_without_credentials_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    found = check_storage(StorageConfig.model_validate({"provider": "gcs", "gcs": {"bucket": "results"}}))
    assert (found.name, found.ok) == ("storage", False)
    assert "name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS" in found.text


def test_cloudflare_images_without_a_token_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.delenv("CF_IMAGES_API_TOKEN", raising=False)
    given = {"provider": "cf_images", "root": tmp_path, "cf_images": {"account_id": "abc"}}
    found = check_storage(StorageConfig.model_validate(given))
    assert (found.name, found.ok) == ("storage", False)
    assert "CF_IMAGES_API_TOKEN must be set" in found.text


@pytest.mark.parametrize(
    ("given", "shown"), [({}, "local: folder "), ({"provider": "s3", "s3": {"bucket": "results"}}, "s3: bucket results")]
)
def test_the_place_is_named(given, shown):
    assert StorageConfig.model_validate(given).place.startswith(shown)
