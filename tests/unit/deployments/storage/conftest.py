"""What the tests of the object stores share: an authority of their own, and servers that present its certificate."""

import ssl

import pytest
import trustme


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def certificate(authority, tmp_path_factory):
    """The paths of certificate and key of 127.0.0.1."""
    folder, issued = tmp_path_factory.mktemp("certificate"), authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def tls(certificate):
    """What a server of 127.0.0.1 needs to speak TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context
