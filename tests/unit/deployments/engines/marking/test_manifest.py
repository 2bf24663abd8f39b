"""Manifests are read back by c2pa's own reader, on every carrier; the certificate is one that the test makes."""

import datetime as dt
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from c2pa import Builder, C2paBuilderIntent, C2paDigitalSourceType, C2paError, C2paSignerInfo, Context, Reader, Signer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import ValidationError

from deployments.engines.marking.carriers import type_of as type_of_open
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.inspection import inspect
from deployments.engines.marking.manifest import read_manifest
from deployments.engines.marking.marker import build_marker
from deployments.jobs.errors import MarkingFailed
from deployments.jobs.ports import OutputFile
from tests.unit.deployments.engines.marking.test_carriers import MAKERS, decoded, labels_of

NOW = dt.datetime.now(dt.UTC)


def certificate(name, issuer=None, issuer_key=None, *, ca=False, days=365):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=400))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key()), critical=False)
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256()), key


def pem(made):
    return made.public_bytes(serialization.Encoding.PEM)


def write_chain(folder, **options):
    root, root_key = certificate("Test Root", ca=True)
    leaf, key = certificate("Test Signer", root.subject, root_key, **options)
    (folder / "chain.pem").write_bytes(pem(leaf) + pem(root))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return pem(root).decode()


@pytest.fixture
def root(tmp_path):
    return write_chain(tmp_path)


@pytest.fixture
def config(tmp_path, root):
    return MarkingConfig(profile="eu", producer="studio-7", certificate=tmp_path / "chain.pem", private_key=tmp_path / "key.pem")


def type_of(path):
    with path.open("rb") as file:
        return type_of_open(file)


def job(kind="faceswap", **spec):
    return SimpleNamespace(id="5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11", kind=kind, spec=spec)


def made(folder, name):
    path = folder / name
    MAKERS[name](path)
    return path


def output(path):
    return OutputFile(path, path.name, type_of(path))


def said(path, root):
    trusting = Context.from_dict({"trust": {"trust_anchors": root}, "verify": {"verify_trust": True}})
    with path.open("rb") as file, Reader(type_of(path), file, context=trusting) as reader:
        return json.loads(reader.json())


@pytest.mark.parametrize("name", MAKERS)
def test_the_manifest_is_valid_on_every_carrier_and_the_label_is_under_it(name, tmp_path, config, root):
    path = made(tmp_path, name)
    before = decoded(path)
    marks = build_marker(config).mark(job(), output(path), {})
    read = said(path, root)
    assert marks["c2pa"] == "manifest of studio-7"
    assert read["validation_state"] == "Trusted"
    assert "compositeWithTrainedAlgorithmicMedia" in json.dumps(read)
    assert [label["ContentProducer"] for label in labels_of(path)] == ["studio-7"]
    assert decoded(path) == before


def test_a_workflow_without_inputs_is_created_and_not_edited(tmp_path, config, root):
    path = made(tmp_path, "a.png")
    build_marker(config).mark(job("comfyui"), output(path), {})
    assert "digitalsourcetype/trainedAlgorithmicMedia" in json.dumps(said(path, root))


def test_a_byte_that_changes_later_breaks_the_signature(tmp_path, config, root):
    path = made(tmp_path, "a.jpg")
    build_marker(config).mark(job(), output(path), {})
    changed = bytearray(path.read_bytes())
    changed[-50] ^= 1
    path.write_bytes(changed)
    assert said(path, root)["validation_state"] == "Invalid"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "end.mp4"])
def test_the_manifest_of_an_input_is_kept_as_the_parents(name, tmp_path, config, root):
    marker = build_marker(config)
    target, result, sources = made(tmp_path, name), tmp_path / f"result-{name}", tmp_path / "lossy.webp"
    marker.mark(job(), output(target), {})
    marker.mark(job(), output(made(tmp_path, "lossy.webp")), {})
    MAKERS[name](result)
    inputs = {"source": SimpleNamespace(path=sources), "target": SimpleNamespace(path=target)}
    marks = marker.mark(job(), output(result), inputs)
    read = said(result, root)
    active = read["manifests"][read["active_manifest"]]
    assert marks["ingredients"] == ["source", "target"]
    assert {entry["title"]: entry["relationship"] for entry in active["ingredients"]} == {"source": "componentOf", "target": "parentOf"}
    assert len(read["manifests"]) == 3
    assert read["validation_state"] == "Trusted"


def test_the_manifest_that_a_result_came_with_is_its_parent(tmp_path, config, root):
    marker, path = build_marker(config), made(tmp_path, "a.png")
    marker.mark(job(), output(path), {})
    assert marker.mark(job(), output(path), {})["ingredients"] == ["a.png"]
    read = said(path, root)
    assert (len(read["manifests"]), read["validation_state"]) == (2, "Trusted")
    assert len(labels_of(path)) == 1
    assert [left.name for left in tmp_path.iterdir() if left.name.startswith(".")] == []


def test_a_job_asks_for_a_signature_where_the_profile_has_none(tmp_path, config):
    path, marker = made(tmp_path, "a.png"), build_marker(config.model_copy(update={"profile": "metadata"}))
    assert marker.mark(job(), output(path), {}) == {"aigc": "PNG tEXt AIGC"}
    assert marker.mark(job(c2pa=True), output(path), {})["c2pa"]


def test_what_cannot_be_signed_fails_and_stays_as_it_was(tmp_path, config):
    path = made(tmp_path, "a.png")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(MarkingFailed, match="manifest could not be signed") as failed:
        build_marker(config).mark(job(), output(path), {})
    assert isinstance(failed.value.__cause__, C2paError)
    assert not list(tmp_path.glob(".*"))


def test_a_result_without_a_place_for_a_manifest_is_named_as_such(tmp_path, config):
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert build_marker(config).mark(job(), output(path), {}) == {"aigc": None, "c2pa": None, "ingredients": []}


@pytest.mark.parametrize(
    ("given", "why"),
    [({"profile": "eu"}, "set marking.certificate"), ({"certificate": "chain.pem"}, "belong together")],
)
def test_settings_that_cannot_sign_say_so(given, why):
    with pytest.raises(ValidationError, match=why):
        MarkingConfig(**given)


def test_a_certificate_that_is_not_there_stops_the_start(tmp_path, config):
    with pytest.raises(ValidationError, match="there is no file"):
        MarkingConfig(certificate=tmp_path / "none.pem", private_key=tmp_path / "key.pem")


@pytest.mark.parametrize("name", MAKERS)
def test_inspection_tells_label_and_manifest(name, tmp_path, config, root):
    path = made(tmp_path, name)
    with path.open("rb") as file:
        bare = inspect(file)
    build_marker(config).mark(job(), output(path), {})
    with path.open("rb") as file:
        found, trusting = inspect(file), inspect(file, root)
    assert (bare.aigc, bare.manifest, bare.problem) == ((), None, None)
    assert [label["ProduceID"] for label in found.aigc] == [job().id]
    assert (found.manifest.state, found.manifest.generator, found.manifest.signer) == ("Valid", "studio-7", "Test Signer")
    assert found.manifest.source_types == ("compositeWithTrainedAlgorithmicMedia",)
    assert trusting.manifest.state == "Trusted"


def test_a_manifest_that_lies_elsewhere_is_not_fetched(tmp_path, config):
    asked = []

    class Noting(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Noting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path, away = made(tmp_path, "a.jpg"), tmp_path / "away.jpg"
    info = C2paSignerInfo(b"es256", config.certificate.read_bytes(), config.private_key.read_bytes(), None)
    with Signer.from_info(info) as signer, Builder("{}") as builder, path.open("rb") as source, away.open("w+b") as target:
        builder.set_intent(C2paBuilderIntent.CREATE, C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA)
        builder.set_no_embed()
        builder.set_remote_url(f"http://127.0.0.1:{server.server_port}/manifest")
        builder.sign(signer, "image/jpeg", source, target)
    with away.open("rb") as file:
        said = read_manifest(file)
    server.shutdown()
    server.server_close()
    assert b"/manifest" in away.read_bytes()
    assert asked == []
    assert said is None or said["validation_state"] == "Unreadable"
