from ipaddress import ip_address

import pytest

from deployments.storage.address import AllowList, is_name, is_public, parse_host


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.100.100.200", "192.0.0.192", "198.18.0.1",
        "168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255", "203.0.113.7", "::", "::1", "::7f00:1", "::ffff:127.0.0.1",
        "::ffff:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fe80::1%lo", "fec0::1",
        "fd00:ec2::254", "ff02::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_is_public_refuses_what_leads_inside(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_is_public_takes_the_internet(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1"])
def test_parse_host_reads_every_spelling_of_an_address(host):
    assert parse_host(host) == ip_address("127.0.0.1")


def test_parse_host_leaves_names_to_dns():
    assert parse_host("example.com") is None


def test_allow_list_reads_names_addresses_and_networks():
    allow = AllowList.parse(["MinIO", "cache:9000", "10.0.0.0/8", "127.0.0.1:8080", "[::1]:8080", "fd00::/8"])

    assert allow.allows_name("minio.", 9000)
    assert allow.allows_name("cache", 9000)
    assert not allow.allows_name("cache", 9001)
    assert allow.allows_address(ip_address("10.9.8.7"), 1)
    assert allow.allows_address(ip_address("127.0.0.1"), 8080)
    assert allow.allows_address(ip_address("::ffff:127.0.0.1"), 8080)
    assert not allow.allows_address(ip_address("127.0.0.1"), 8081)
    assert allow.allows_address(ip_address("::1"), 8080)
    assert allow.allows_address(ip_address("fd00::1"), 1)
    assert not allow.allows_address(ip_address("192.168.0.1"), 1)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "", "http://minio", "a/b"])
def test_allow_list_refuses_what_is_no_place(entry):
    with pytest.raises(ValueError, match="is no host"):
        AllowList.parse([entry])


@pytest.mark.parametrize(
    ("entry", "reason"), [("10.0.0", "cut short"), ("0x7f.1", "cut short"), ("minio:65536", "port"), ("10.0.0.1:0", "port")]
)
def test_allow_list_refuses_what_would_never_match(entry, reason):
    with pytest.raises(ValueError, match=reason):
        AllowList.parse([entry])


@pytest.mark.parametrize(
    ("host", "is_one"), [("a" * 63, True), ("a" * 64, False), ("a." * 126 + "a", True), ("a." * 127 + "a", False), ("a..b", False)]
)
def test_is_name_follows_the_limits_of_dns(host, is_one):
    assert is_name(host) is is_one
