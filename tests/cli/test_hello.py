from __future__ import annotations

import json
import random
import re

import pytest

from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello
from tests.cli.hellos import EXPECTED, PLAIN, RETRY, STREAMS, bare, every_hello, hello_with, record, run, server_name


def values(numbers):
    return [each["value"] for each in numbers]


def numbers(texts):
    return [int(text, 0) for text in texts]


@every_hello
def test_json_as_tshark_sees_it(documents, name):
    found = documents(STREAMS[name])
    seen, told = EXPECTED[name]["tshark"], EXPECTED[name]["told"]
    assert len(found) == told.get("hellos", 1)

    def of_all(field):
        return [value for document in found for value in document.get(field, ())]

    assert [each["random"] for each in found] == seen.get("random", [])
    assert [each["legacy_session_id"] for each in found if each["legacy_session_id"]] == seen.get(
        "legacy_session_id", []
    )
    assert [each["legacy_version"]["value"] for each in found] == numbers(seen.get("legacy_version", []))
    assert values(of_all("cipher_suites")) == numbers(seen.get("cipher_suites", []))
    assert values(of_all("legacy_compression_methods")) == numbers(seen.get("compression_methods", []))
    assert values(each["extension_type"] for each in of_all("extensions")) == numbers(seen.get("extensions", []))
    lengths = [len(each["extension_data"]) // 2 for each in of_all("extensions")]
    assert lengths == numbers(seen.get("extension_lengths", []))
    assert [each["server_name"] for each in found if "server_name" in each] == seen.get("server_name", [])
    assert of_all("application_layer_protocol_negotiation") == seen.get("alpn_protocols", [])
    assert values(of_all("supported_groups")) == numbers(seen.get("supported_groups", []))
    assert values(of_all("supported_versions")) == numbers(seen.get("supported_versions", []))
    assert values(share["group"] for share in of_all("key_share")) == numbers(seen.get("key_share_groups", []))
    assert [share["key_exchange"] for share in of_all("key_share")] == seen.get("key_exchanges", [])
    assert len(found[0].get("pre_shared_key", {}).get("identities", ())) == told.get("psk_identities", 0)


@every_hello
def test_json_sizes_and_fingerprints(documents, name):
    document = documents(STREAMS[name])[0]
    message = bare(STREAMS[name])
    parsed = ClientHello.parse(message)
    assert document["size"] == len(message)
    assert document["records"] == {"openssl-3.0-17k": 2, "openssl-3.0-small-records": 5}.get(name, 1)
    for function in ja3, ja3_string, ja4, ja4_r:
        assert document[function.__name__] == function(parsed)
    names = {each["extension_type"]["name"] for each in document["extensions"]}
    parsed_ones = {each for each in names if each in document}
    assert {each for each in names - parsed_ones if not each.startswith("GREASE")} <= {"trust_anchors"}


@every_hello
def test_the_same_from_anything(documents, name):
    """A file, its hello alone, and hex of either."""
    stream = STREAMS[name]
    expected = documents(stream)
    without_records = [{**expected[0], "records": 0}]
    assert documents(bare(stream)) == without_records
    colons = ":".join(f"{byte:02X}" for byte in stream)
    array = ",\n".join(f"0x{byte:02x}" for byte in bare(stream))
    lines = re.sub("(.{60})", r"\1\n", stream.hex())
    assert documents(colons.encode()) == documents(lines.encode()) == expected
    assert documents(array.encode()) == without_records


@every_hello
def test_standard_input(documents, name):
    expected = documents(STREAMS[name])
    for arguments, data in ((["-"], STREAMS[name]), ([], bare(STREAMS[name]).hex().encode())):
        status, out, err = run("--json", *arguments, input=data)
        assert (status, err) == (0, "")
        found = [json.loads(line) for line in out.splitlines()]
        assert found == (expected if arguments else [{**expected[0], "records": 0}])


@every_hello
def test_table(hello, name):
    status, out, err = hello(STREAMS[name])
    assert (status, err) == (0, "")
    parsed = ClientHello.parse(bare(STREAMS[name]))
    table = out.split("\n\n")[0]
    rows = dict(re.findall(r"^([a-zA-Z]\w+)(?:  +|: )(.*(?:\n {22}.*)*)", table, re.MULTILINE))
    assert rows["size"].startswith(f"{len(bare(STREAMS[name]))} bytes in ")
    assert rows["server_name"] == (parsed.server_name or "-")
    assert re.split(r",\s+", rows["ALPN"]) == (list(parsed.alpn_protocols) or ["-"])
    assert rows["legacy_session_id"] == f"{len(parsed.legacy_session_id)} bytes"
    assert rows["ja3"] == ja3(parsed)
    assert rows["ja3_string"] == ja3_string(parsed)
    assert rows["ja4"] == ja4(parsed)
    assert rows["ja4_r"] == ja4_r(parsed)
    assert numbers(re.findall(r"^  (0x[0-9A-F]{4})  ", table, re.MULTILINE)) == list(parsed.cipher_suites)
    lengths = [(each.extension_type, len(each.extension_data)) for each in parsed.extensions]
    found = re.findall(r"^ +(\d+) +(\d+) bytes?  \w", table, re.MULTILINE)
    assert [(int(number), int(size)) for number, size in found] == lengths
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_table_in_full(hello):
    """As a whole, once, so that whoever changes it sees it."""
    name = b"a.example"
    stream = hello_with(
        server_name(name),
        (43, b"\4\x1a\x1a\3\4"),
        (10, b"\0\4\x11\xec\0\x1d"),
        (51, b"\0\7\0\x1d\0\3abc"),
        (16, b"\0\3\2h2"),
        (41, b"\0\x0b\0\5ident\0\0\0\7\0\5\4bind"),
        (0x3A3A, b"\1"),
        (0x1234, b"?"),
        (23, b""),
    )
    assert hello(stream)[1] == (
        """\
size                  144 bytes in 1 record
legacy_version        TLSv1_2
supported_versions    GREASE 0x1A1A, TLSv1_3
server_name           a.example
ALPN                  h2
legacy_session_id     0 bytes
psk_identities        1: 5 bytes
supported_groups      X25519MLKEM768, x25519
key_share             x25519 3 bytes
signature_algorithms  -
ja3                   JA3
ja3_string            771,4865,0-43-10-51-16-41-4660-23,4588-29,
ja4                   JA4
ja4_r                 t13d0108h2_1301_000a,0017,0029,002b,0033,1234
cipher_suites: 1
  0x1301  TLS_AES_128_GCM_SHA256
extensions: 9
      0     14 bytes  server_name: a.example
     43      5 bytes  supported_versions: GREASE 0x1A1A, TLSv1_3
     10      6 bytes  supported_groups: X25519MLKEM768, x25519
     51      9 bytes  key_share: group x25519, key_exchange 3 bytes
     16      5 bytes  application_layer_protocol_negotiation: h2
     41     20 bytes  pre_shared_key: identities (identity 5 bytes, obfuscated_ticket_age 7), bin...
  14906       1 byte  GREASE 0x3A3A: 01
   4660       1 byte  unknown 0x1234: 3f
     23      0 bytes  extended_master_secret

""".replace("JA3", ja3(ClientHello.parse(bare(stream)))).replace("JA4", ja4(ClientHello.parse(bare(stream))))
    )


def test_what_a_client_says_does_nothing_to_the_terminal(hello):
    stream = hello_with(server_name(b"\x1b[2J\x9b\\a\r\n\x7f"), (16, b"\0\5\4\x1b]0;"))
    shown = r"\x1b[2j\x9b\x5ca\x0d\x0a\x7f"  # a name, in lower case
    _, out, _ = hello(stream)
    assert f"server_name           {shown}\n" in out
    assert r"ALPN                  \x1b]0;" in out
    _, line, _ = hello("--json", stream)
    assert json.loads(line)["server_name"] == shown
    for each in out, line:
        assert each.isascii()
        assert each.replace("\n", "").isprintable()


def test_whatever_comes_is_printable_or_one_line(hello):
    """Bytes changed at random: never a traceback, never a control character."""
    chance = random.Random(20)
    statuses = set()
    for turn in range(300):
        stream = bytearray(STREAMS[chance.choice(list(STREAMS))][:2500])
        for _ in range(chance.randrange(1, 5)):
            stream[chance.randrange(len(stream))] = chance.randrange(256)
        status, out, err = hello(*(["--json"] if turn % 2 else []), bytes(stream))
        statuses.add(status)
        assert err.count("\n") == (status == 2)
        for each in out, err:
            assert each.isascii()
            assert each.replace("\n", "").isprintable()
    assert statuses == {0, 2}


def test_both_hellos_of_a_retry(documents):
    first, second = documents(RETRY)
    assert [each["name"] for each in values_of(first)] == ["x25519"]
    assert [each["name"] for each in values_of(second)] == ["secp384r1"]
    assert first["random"] == second["random"]


def values_of(document):
    return [share["group"] for share in document["key_share"]]


@pytest.mark.parametrize(
    "rest",
    [record(b"\0" * 70, 23) + b"garbage", record(b"\x10\0\0\1a"), record(b"\1", 20) + record(b"\xff" * 40) + b"x" * 9],
    ids=["application data", "client_key_exchange", "encrypted handshake"],
)
def test_what_a_client_goes_on_with_is_passed_over(documents, rest):
    assert documents(PLAIN + rest) == documents(PLAIN)
