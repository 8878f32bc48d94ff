"""Connection: bytes in, bytes out. What each verb returns and raises, before, during and after the handshake."""

from __future__ import annotations

import pytest

from greentls.core.connection import Connection
from greentls.errors import CertificateError, ConnectionDead, TLSError, UnexpectedEOF, WantRead
from greentls.openssl.pump import CLOSED, WANT_READ
from tests.support.pairs import (
    TLS12,
    both_versions,
    client,
    client_context,
    handshake,
    move,
    server_context,
)

GARBAGE = b"\x17\x03\x03\x00\x20" + bytes(32)  # a record that no key opens
RECORD = 16384


def fresh(pki, version=0, **settings):
    return client(client_context(pki, version, **settings)), Connection(server_context(pki, version))


@pytest.fixture
def ends(pki, version):
    here, there = fresh(pki, version)
    handshake(here, there)
    return here, there


def carry(source, target, size):
    """Ciphertext, cut into pieces of that many bytes."""
    data = source.data_to_send()
    for at in range(0, len(data), size):
        target.receive_data(data[at : at + size])


@both_versions
class TestHandshake:
    @pytest.mark.parametrize("size", [1, 7, 100_000])
    def test_however_its_bytes_are_cut(self, pki, version, size):
        here, there = fresh(pki, version)
        for _ in range(3):
            for end, other in ((here, there), (there, here)):
                end.step_handshake()
                carry(end, other, size)
        assert here.established and there.established
        here.do_handshake()  # no error, and nothing to do

    def test_more_please_is_an_exception_of_the_verb_and_a_result_of_its_twin(self, pki, version):
        here, there = fresh(pki, version)
        with pytest.raises(WantRead):
            here.do_handshake()
        assert there.step_handshake() == WANT_READ
        assert here.data_to_send()
        assert not there.data_to_send()
        assert not here.data_to_send(), "it was taken"

    def test_there_is_no_data_before_it_is_finished(self, pki, version):
        here, there = fresh(pki, version)
        for operation in (here.read, here.shutdown, lambda: here.write(b"x"), lambda: here.read_into(bytearray(1))):
            with pytest.raises(TLSError, match="the handshake is not finished"):
                operation()
        assert not here.started
        handshake(here, there)  # which it has done no harm

    def test_the_end_of_the_ciphertext(self, pki, version):
        here, _ = fresh(pki, version)
        with pytest.raises(WantRead):
            here.do_handshake()
        here.receive_data(b"")
        with pytest.raises(UnexpectedEOF):
            here.do_handshake()

    def test_a_refusal_is_an_alert_and_the_end(self, pki, version):
        here, there = fresh(pki, version)
        there.refuse(112, "no such name")
        with pytest.raises(ConnectionDead, match="no such name"):
            there.do_handshake()
        with pytest.raises(WantRead):
            here.do_handshake()
        move(there, here)
        with pytest.raises(TLSError, match="unrecognized name"):
            here.do_handshake()

    def test_a_failure_tells_the_peer_and_is_the_end(self, pki, version):
        _, there = fresh(pki, version)
        there.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(TLSError) as caught:
            there.do_handshake()
        assert caught.value.operation == "do_handshake"
        for operation in (there.do_handshake, there.read, there.shutdown):
            with pytest.raises(ConnectionDead):
                operation()


@both_versions
class TestNames:
    def test_an_address_is_verified_and_not_sent(self, pki, version):
        """RFC 6066 3: literal addresses are no server names."""
        there = Connection(server_context(pki, version))
        handshake(client(client_context(pki, version), name="127.0.0.1"), there)
        assert there.server_name is None

    @pytest.mark.parametrize("name", ["elsewhere.test", "127.0.0.2"])
    def test_another_name_than_the_certificates_is_refused(self, pki, version, name):
        with pytest.raises(CertificateError):
            handshake(client(client_context(pki, version), name=name), Connection(server_context(pki, version)))

    def test_another_name_is_not_minded_without_a_check(self, pki, version):
        here = Connection(client_context(pki, version), server_hostname="elsewhere.test", verify_hostname=False)
        there = Connection(server_context(pki, version))
        handshake(here, there)
        assert there.server_name == "elsewhere.test"


@both_versions
class TestData:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_bytes_go_out_whole(self, ends, version, kind):
        here, there = ends
        data = bytes(range(256)) * 300  # several records
        assert here.write(kind(data)) == len(data)
        assert here.unsent > len(data)
        move(here, there)
        got = b""
        while len(got) < len(data):
            piece = there.read()
            assert 0 < len(piece) <= RECORD
            got += piece
        assert got == data
        with pytest.raises(WantRead):
            there.read()

    def test_nothing_is_nothing(self, ends, version):
        here, _ = ends
        assert here.write(b"") == 0
        assert not here.unsent

    def test_memory_with_gaps_is_refused_and_the_connection_goes_on(self, ends, version):
        here, there = ends
        with pytest.raises((BufferError, ValueError, TypeError)):
            here.write(memoryview(b"abcdef")[::2])
        assert not here.unsent
        here.write(b"fine")
        move(here, there)
        assert there.read() == b"fine"

    def test_a_read_takes_no_more_than_it_is_asked_for(self, ends, version):
        here, there = ends
        here.write(b"hello, world")
        move(here, there)
        assert there.read(5) == b"hello"
        assert there.pending == 7
        room = bytearray(4)
        assert there.read_into(room) == 4
        assert (room, there.pending) == (b", wo", 3)
        with memoryview(bytearray(10)) as view:
            assert there.read_into(view) == 3
            assert view[:3] == b"rld"

    def test_memory_that_cannot_be_written_is_refused(self, ends, version):
        here, there = ends
        here.write(b"x")
        move(here, there)
        with pytest.raises((BufferError, TypeError)):
            there.read_into(b"immutable")
        assert there.read() == b"x"

    def test_a_twin_tells_by_its_result(self, ends, version):
        here, there = ends
        assert there.step_read(100) == WANT_READ
        here.write(b"abc")
        move(here, there)
        assert there.step_read(100) == b"abc"
        here.shutdown()
        move(here, there)
        assert there.step_read(100) == CLOSED

    def test_openssl_is_not_asked_again_before_something_has_come(self, ends, version):
        here, there = ends
        with pytest.raises(WantRead):
            there.read()
        assert there.drained
        here.write(b"x")
        move(here, there)
        assert not there.drained

    def test_a_damaged_record_tells_the_peer_and_is_the_end(self, ends, version):
        here, there = ends
        there.receive_data(GARBAGE)
        with pytest.raises(TLSError, match="decryption failed or bad record mac"):
            there.read()
        move(there, here)
        with pytest.raises(TLSError, match="alert bad record mac"):
            here.read()
        for operation in (there.read, there.shutdown, lambda: there.write(b"x")):
            with pytest.raises(ConnectionDead):
                operation()


@both_versions
class TestEnd:
    def test_each_side_says_it(self, ends, version):
        here, there = ends
        assert here.shutdown() is False
        move(here, there)
        assert not there.closed_by_peer, "nobody has read it"
        assert there.read() == b""
        assert there.closed_by_peer
        assert there.shutdown() is True
        move(there, here)
        assert here.shutdown() is True

    def test_what_was_sent_before_it_is_read_first(self, ends, version):
        here, there = ends
        here.write(b"the last words")
        here.shutdown()
        move(here, there)
        assert [there.read(), there.read()] == [b"the last words", b""]

    def test_without_close_notify_it_is_an_error_behind_the_data(self, ends, version):
        here, there = ends
        here.write(b"cut off")
        move(here, there)
        there.receive_data(b"")
        assert there.read() == b"cut off"
        with pytest.raises(UnexpectedEOF):
            there.read()

    def test_what_comes_behind_it_is_nobodys_ciphertext(self, ends, version):
        here, there = ends
        here.shutdown()
        there.receive_data(here.data_to_send() + b"220 in the clear\r\n")
        assert there.read() == b""
        assert there.unread == 18
        assert there.take_unread() == b"220 in the clear\r\n"
        assert there.unread == 0


@both_versions
class TestMemory:
    def test_it_is_given_back_only_while_nothing_is_on_its_way(self, ends, version):
        here, there = ends
        move(there, here)
        here.write(b"x" * 100_000)
        assert not here.release()
        move(here, there)
        assert not there.release()
        assert here.release()
        got = b""
        while len(got) < 100_000:
            got += there.read()
        assert there.release()
        there.write(b"and back")
        move(there, here)
        assert here.read() == b"and back"

    def test_not_in_the_handshake(self, pki, version):
        assert not fresh(pki, version)[0].release()


@both_versions
class TestFacts:
    def test_before_the_handshake_there_are_none(self, pki, version):
        here, there = fresh(pki, version)
        for end in (here, there):
            assert (end.version, end.cipher, end.group, end.early_data_accepted) == (None, None, None, None)
            assert (end.peer_certificates, end.verified_chain, end.alpn_protocol) == ([], [], b"")
            assert not (end.session_reused or end.established or end.closed_by_peer or end.verify_data(True))
            with pytest.raises(ValueError, match="not done"):
                end.export_keying_material(b"EXPORTER-test", 32)
        assert there.shared_ciphers is None
        assert there.server_name is None

    def test_both_sides_know_the_same(self, ends, pki, version):
        here, there = ends
        name = "TLSv1.2" if version == TLS12 else "TLSv1.3"
        for fact in ("version", "cipher", "group", "server_name", "tls13", "session_reused"):
            assert getattr(here, fact) == getattr(there, fact), fact
        assert (here.version, here.cipher[1], here.server_name) == (name, name, "localhost")
        assert here.verify_data(True) == there.verify_data(False) != there.verify_data(True) == here.verify_data(False)
        assert here.cipher in there.shared_ciphers
        assert here.shared_ciphers is None

    def test_certificates(self, ends, pki, version):
        here, there = ends
        assert here.peer_certificates == [there.certificate]
        assert here.verified_chain[0] == there.certificate == there.certificate_chain.der
        assert len(here.verified_chain) == 2
        assert (there.peer_certificates, here.certificate, here.certificate_chain) == ([], None, None)

    def test_keying_material_is_the_same_at_both_ends(self, ends, version):
        here, there = ends
        one, other = (end.export_keying_material(b"EXPORTER-test", 40, b"context") for end in ends)
        assert one == other
        assert len(one) == 40
        none, empty = (here.export_keying_material(b"EXPORTER-test", 40, context) for context in (None, b""))
        assert one not in (none, empty)
        assert (none == empty) is (version != TLS12)
        beyond = (b"key expansion", 32) if version == TLS12 else (b"EXPORTER-test", 1 << 20)
        for label, length in ((b"EXPORTER-test", 0), (b"EXPORTER-test", -1), beyond):
            with pytest.raises(ValueError, match="keying material"):
                there.export_keying_material(label, length)
