"""greentls doctor: on each kind of broken set-up its line says what is wrong and what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import cryptography
import pytest

from greentls.cli import checks, main
from greentls.errors import ResponderUnavailable
from greentls.openssl import foundation, inventory, library, pump, symbols
from greentls.openssl.declarations import SIGNATURES
from tests.support.helpers import ROOT, free_port
from tests.support.ocsp_authority import Authority
from tests.support.openssl import SYSTEM, hide

WHEEL = Path(foundation.load(foundation.CRYPTOGRAPHY).path)


@pytest.fixture
def doctor(capfd):
    """doctor(*options) runs the command in here: the exit status, and the lines without the word before each."""

    def doctor(*options):
        status = main(["doctor", *map(str, options)])
        out, err = capfd.readouterr()
        assert err == ""
        lines = [line.split(maxsplit=1) for line in out.splitlines()]
        assert status == any(word == "problem" for word, _ in lines)
        return {word: [text for each, text in lines if each == word] for word in ("ok", "problem")}

    return doctor


@pytest.fixture
def secret(tmp_path):
    """secret(name) makes a secret file."""

    def secret(name="secret", content=None, mode=0o600):
        path = tmp_path / name
        path.write_bytes(content or os.urandom(32))
        path.chmod(mode)
        return path

    return secret


def in_process(*options, path=(), openssl=foundation.CRYPTOGRAPHY):
    """The lines of `python -m greentls doctor`, with directories in front of its import path."""
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    import_path = os.pathsep.join([*map(str, path), str(ROOT), *inherited])
    environment = {**os.environ, "PYTHONPATH": import_path, foundation.VARIABLE: openssl}
    command = [sys.executable, "-m", "greentls", "doctor", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert done.returncode == ("problem " in done.stdout)
    return done.stdout.splitlines()


def test_all_is_well(doctor):
    lines = doctor()
    assert lines["problem"] == []
    told = dict(line.split(": ", 1) for line in lines["ok"])
    assert list(told) == [
        *("greentls", "gevent", "greenlet", "pyopenssl", "cryptography", "pymemcache"),
        *("OpenSSL", "functions", "pump", "hub", "TLSv1.2 handshake", "TLSv1.3 handshake"),
    ]
    assert told["cryptography"] == cryptography.__version__
    assert told["functions"].startswith("all found")
    assert "a callback waited" in told["TLSv1.2 handshake"] and "TLS_AES" in told["TLSv1.3 handshake"]


def test_help_teaches(capfd):
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    out, _ = capfd.readouterr()
    for each in ("--store 'memcached://", "--certificate fullchain.pem", "--json", "The exit status is 0 if all is ok"):
        assert each in out


# -- what is installed -------------------------------------------------------------------------------------------------


def test_a_package_that_is_too_old(doctor, monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "38.0.4" if name == "cryptography" else real(name))
    [line] = doctor()["problem"]
    assert line == "cryptography: 38.0.4 is older than 44; pip install --upgrade 'cryptography>=44'"


def test_a_package_that_is_not_installed(doctor, monkeypatch):
    def version(name, real=metadata.version):
        if name == "pymemcache":
            raise metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert doctor()["problem"] == ["pymemcache: not installed; pip install --upgrade 'pymemcache>=4'"]


def test_the_bound_is_that_of_this_python(monkeypatch):
    needed = ["greenlet>=3.0.3", 'greenlet>=3.1; python_version >= "3.10"', 'greenlet>=99; python_version >= "4.0"']
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    monkeypatch.setattr(metadata, "version", lambda name: "3.0.20")
    with pytest.raises(checks.Problem, match=r"3.0.20 is older than 3.1"):
        checks.package("greenlet")


def test_a_pyopenssl_that_is_too_old_for_cryptography(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["cryptography<45,>=41.0.5,!=40.0.1"])
    monkeypatch.setattr(metadata, "version", lambda name: {"pyopenssl": "25.0.0", "cryptography": "50.0.2"}[name])
    finding = checks.examine("pyopenssl", lambda: checks.package("pyopenssl"))
    assert finding.found == "25.0.0 needs cryptography below 45, and 50.0.2 is installed"
    assert finding.remedy == "pip install --upgrade pyopenssl, or pip install 'cryptography<45'"


def test_a_package_that_cannot_be_imported_ends_no_other_check(tmp_path):
    """hazard: the one program that would tell what is wrong ends with a traceback."""
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography" / "__init__.py").write_text("")
    lines = in_process(path=[tmp_path])
    broken = [line for line in lines if line.startswith("problem")]
    assert len(lines) == 12 and len(broken) >= 4
    assert broken[0].endswith("; pip install --upgrade --force-reinstall greentls")
    assert all(line.endswith(": the same problem as OpenSSL") for line in broken[1:])
    assert any(line.startswith("ok       gevent: ") for line in lines)


def test_what_several_lines_suffer_from_is_said_once(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['greentls.openssl._native'] = None")
    lines = in_process(path=[tmp_path], openssl=foundation.SYSTEM)
    openssl, *others = [line for line in lines if line.startswith("problem")]
    assert openssl.startswith("problem  OpenSSL: greentls was built without it: ") and "; install" in openssl
    assert others == [
        f"problem  {name}: the same problem as OpenSSL"
        for name in ("functions", "pump", "TLSv1.2 handshake", "TLSv1.3 handshake")
    ]


def test_the_pump(monkeypatch):
    assert checks.GENERAL[8][0] == "pump"
    said = []
    for compiled, pure in ((True, ""), (False, "1"), (False, "")):
        monkeypatch.setattr(pump, "COMPILED", compiled)
        monkeypatch.setenv("GREENTLS_PURE", pure)
        said.append(checks.GENERAL[8][1]())
    assert said == [
        "compiled",
        "plain Python, as GREENTLS_PURE is set",
        "plain Python; for the faster one, reinstall greentls where a C compiler and Python.h are",
    ]


# -- OpenSSL's functions -----------------------------------------------------------------------------------------------


@pytest.mark.programs
def test_a_stripped_cryptography(tmp_path):
    """Whose functions are hidden for good, as a packager may have done it."""
    copy = tmp_path / "cryptography"
    shutil.copytree(Path(cryptography.__file__).parent, copy)
    [extension] = copy.rglob("_rust*.so")
    subprocess.run(["strip", extension], check=True, timeout=300)
    lines = in_process(path=[tmp_path])
    [line] = [line for line in lines if line.startswith("problem  functions: ")]
    assert "it has no symbol table (.symtab): it was stripped" in line
    lost = line.partition("These do not work: ")[2].partition("; install")[0]
    assert {"sessions", "signing keys (greentls.keys)", "ticket keys", "verify_callback"} <= set(lost.split("; "))
    assert "; install cryptography's manylinux or musllinux wheel from PyPI, unstripped" in line
    assert "pip install --force-reinstall --only-binary :all: cryptography" in line
    assert "TLS" not in lost.split("; ")
    assert [line[:8] for line in lines if " handshake: works" in line] == ["ok      "] * 2  # as docs/support.rst says


@pytest.mark.parametrize(
    ("function", "lost"),
    [
        ("EVP_PKEY_todata", "signing keys (greentls.keys)"),
        ("SSL_CTX_set_tlsext_ticket_key_evp_cb", "ticket keys"),
        ("SSL_CTX_set_client_hello_cb", "client_hello_callback and sni_callback"),
        ("SSL_CTX_set_allow_early_data_cb", "early data"),
        ("SSL_CTX_sess_set_get_cb", "sessions"),
        ("SSL_CTX_set_cert_verify_callback", "verify_callback"),
    ],
)
def test_a_function_that_is_nowhere(doctor, monkeypatch, function, lost):
    hide(monkeypatch, function)
    line = doctor()["problem"][0]
    assert line == f"functions: there is no {function}: not there. These do not work: {lost}; get another"


def test_a_function_that_others_serve_for(doctor, monkeypatch):
    hide(monkeypatch, "OSSL_ERR_STATE_new", "SSL_get0_group_name")
    lines = doctor()
    assert lines["problem"] == []
    [line] = [line for line in lines["ok"] if line.startswith("functions: all found but ")]
    named = line.removeprefix("functions: all found but ").removesuffix(", which costs little").split(", ")
    assert {"OSSL_ERR_STATE_new", "SSL_get0_group_name"} <= set(named)


def test_every_feature_is_somebodys():
    told = {inventory.cost(name) for name in SIGNATURES}
    assert told == {user for _, user in inventory._USERS} | {"TLS"}


def test_an_openssl_that_cannot_be_told(doctor, monkeypatch):
    def find(self, wanted):
        raise symbols.Unusable("its library is not OpenSSL")

    monkeypatch.setattr(symbols._Extension, "find", find)
    hide(monkeypatch)
    monkeypatch.setattr(symbols, "_known", {})
    for name in library.hidden:
        monkeypatch.setattr(library.lib, name, library.choose(name, None))
    problems = doctor()["problem"]
    if SYSTEM:  # it exports all that has to be there
        assert problems == []
    else:
        assert "its library is not OpenSSL" in problems[0] and "pip install" in problems[0]


# -- handshakes --------------------------------------------------------------------------------------------------------


def test_a_handshake_that_fails(doctor, monkeypatch):
    hide(monkeypatch, "SSL_get_current_cipher")
    lines = doctor()["problem"]
    assert any("TLSv1.2 handshake: SSL_get_current_cipher: not there; get another" in line for line in lines)
    assert lines[-1] == "TLSv1.3 handshake: the same problem as TLSv1.2 handshake"


# -- stores ------------------------------------------------------------------------------------------------------------


def test_a_store_of_this_process(doctor):
    line = doctor("--store", "memory://")["ok"][-1]
    assert line == "store memory://: TLSv1.2 and TLSv1.3 resume; other processes do not share it"


@pytest.mark.programs
def test_a_store_that_works(doctor, memcached, secret):
    line = doctor("--store", memcached.url(secret_file=secret()))["ok"][-1]
    assert line == f"store memcached://{memcached.address}: TLSv1.2 and TLSv1.3 resume"


@pytest.mark.programs
def test_servers_with_different_secrets(doctor, memcached, secret):
    """hazard: each server resumes what it made itself, and nobody notices that no other does."""
    url = memcached.url(secret_file=secret())
    for _ in range(2):
        assert doctor("--store", url)["problem"] == []
    [line] = doctor("--store", memcached.url(secret_file=secret("other")))["problem"]
    assert "a value that another server sealed, and that this secret_file does not open" in line
    assert line.endswith("; copy one secret file to all servers of this store, or keep fleets apart by context=NAME")


@pytest.mark.programs
def test_a_store_that_keeps_nothing(doctor, memcached, secret, monkeypatch):
    monkeypatch.setattr("greentls.stores.memcached._expiry", lambda lifetime: -1)  # expired at once
    [line] = doctor("--store", memcached.url(secret_file=secret()))["problem"]
    assert line.endswith("TLSv1.2 does not resume: the session is gone again; give the store more memory")


def test_no_memcached_there(doctor, secret):
    url = f"memcached://127.0.0.1:{free_port()}?secret_file={secret()}"
    [line] = doctor("--store", url)["problem"]
    assert "Connection refused; start it, or correct the URL; until then each handshake is a full one" in line


def test_a_store_that_cannot_be_opened(doctor, secret):
    open_to_all = secret("open", mode=0o644)
    zeros = secret("zeros", bytes(32))
    for query, told in [
        (f"secret_file={open_to_all}", f"others can read it (mode 0644); chmod 600 {open_to_all}, or 440"),
        (f"secret_file={zeros}", "nearly all the same; give 32 random bytes or more in it"),
        ("secret_file=/nowhere", "No such file or directory; give a file that can be read"),
        ("", "sessions would leave this process in clear; add secret_file=PATH (umask 077; head -c 32 /dev/urandom"),
    ]:
        [line] = doctor("--store", f"memcached://127.0.0.1:1?{query}")["problem"]
        assert told in line
    [line] = doctor("--store", "redis://127.0.0.1")["problem"]
    assert line == "store redis://127.0.0.1: unknown kind of store; known are memory://, memcached://"


def test_two_stores(doctor):
    assert len(doctor("--store", "memory://", "--store", "memory://?entries=10")["ok"]) == 14


# -- OCSP --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "http://responder.invalid/")


@pytest.fixture
def answer(authority, monkeypatch):
    """answer(function of the DER request) stands for the network."""
    return lambda function: monkeypatch.setattr("greentls.ocsp.fetch.fetch", lambda url, request, _: function(request))


def test_a_responder(doctor, authority, answer):
    issued = authority.issue()
    answer(lambda request: authority.respond(issued.certificate))
    line = doctor("--certificate", issued.cert_file)["ok"][-1]
    assert f"{issued.cert_file}: good until " in line
    authority.revoke(issued.certificate)
    [line] = doctor("--certificate", issued.cert_file)["problem"]
    assert ": revoked, says " in line and line.endswith("; replace the certificate")


def test_a_responder_that_is_down(doctor, authority, answer):
    def down(request):
        raise ResponderUnavailable("http://responder.invalid/: Connection refused")

    answer(down)
    [line] = doctor("--certificate", authority.issue().cert_file)["problem"]
    assert line.endswith("Connection refused; allow connections to it from this machine, or try again later")


def test_a_responder_that_answers_nonsense(doctor, authority, answer):
    answer(lambda request: b"nonsense")
    [line] = doctor("--certificate", authority.issue().cert_file)["problem"]
    assert "OCSP response: " in line and line.endswith("; ask the CA; a response like this is not stapled")


def test_a_certificate_without_its_issuer_and_one_without_a_responder(doctor, authority, tmp_path):
    issued = authority.issue()
    alone = tmp_path / "alone.pem"
    alone.write_text(
        Path(issued.cert_file).read_text().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    )
    [line] = doctor("--certificate", alone)["problem"]
    assert line.endswith("its issuer's certificate is not in the file; append it, or give fullchain.pem")
    assert "nothing to staple" in doctor("--certificate", authority.issue(url=None).cert_file)["ok"][-1]
    alone.write_text("text")
    [line] = doctor("--certificate", alone)["problem"]
    assert line == f"{alone}: not a PEM certificate; give the server's chain, such as fullchain.pem"
    [line] = doctor("--certificate", tmp_path / "none")["problem"]
    assert line.endswith("none: No such file or directory; give a file that can be read")


# -- for bug reports ---------------------------------------------------------------------------------------------------


def test_json_has_no_secret(capfd, secret):
    content = b"0123456789abcdefghijklmnopqrstuv"
    path = secret("secret", content)
    urls = [f"memcached://127.0.0.1:1?secret_file={path}", "memcached://user:password@127.0.0.1:1?insecure=1"]
    status = main(["doctor", "--json", *(part for url in urls for part in ("--store", url))])
    out, err = capfd.readouterr()
    assert (status, err) == (1, "")
    found = json.loads(out)
    assert [each["ok"] for each in found[-2:]] == [False, False]
    assert all(set(each) == {"name", "ok", "found", "remedy"} for each in found)
    assert content.decode() not in out and "password" not in out


# -- wheels ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_wheel(tmp_path):
    """make_wheel(the content of its extension module), or a wheel without one."""

    def make(content=None):
        path = tmp_path / "cryptography-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            if content is not None:
                archive.writestr("cryptography/hazmat/bindings/_rust.abi3.so", content)
        return path

    return make


def test_wheels(doctor, make_wheel, tmp_path):
    path = make_wheel(WHEEL.read_bytes())
    [line] = doctor("--wheel", path)["ok"]
    found = len(inventory.hidden() - (set() if SYSTEM else inventory.missing().keys()))  # 3 has not all that 4 has
    assert line.startswith(f"{path}: {found} of {len(library.hidden)}")
    path = make_wheel(b"MZ")
    [line] = doctor("--wheel", path)["problem"]
    assert line == f"{path}: none: it is not an ELF file; on its platform, use another build of cryptography"
    for path in (make_wheel(), Path(__file__)):
        [line] = doctor("--wheel", path)["problem"]
        assert line == f"{path}: not a wheel of cryptography; give one"
    [line] = doctor("--wheel", tmp_path / "none.whl")["problem"]
    assert line.endswith("No such file or directory; give a file that can be read")


def test_a_wheel_that_lacks_some(doctor, make_wheel, monkeypatch):
    monkeypatch.setattr(
        inventory, "hidden", lambda: frozenset({"SSL_CTX_sess_set_get_cb", "no_such_function", "SSL_ctrl"})
    )
    path = make_wheel(WHEEL.read_bytes())
    [line] = doctor("--wheel", path)["problem"]
    assert line == f"{path}: 2 of 3, not no_such_function; do without TLS"
