"""Metadata. Build and tool settings are in pyproject.toml."""

import os
import pathlib
import runpy
import shlex
import shutil
import sysconfig

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, SetupError

here = pathlib.Path(__file__).parent
version: dict[str, str] = {}
exec((here / "greentls" / "_version.py").read_text(encoding="utf-8"), version)

pkcs11 = ["python-pkcs11>=0.8"]
prometheus = ["prometheus-client>=0.20"]
capture = ["dpkt>=1.9.8"]
bench = [
    "matplotlib>=3.8",  # draws the results
    "eventlet>=0.36",  # who else serves TLS
    "uvloop>=0.21",
    "dpkt>=1.9.8",  # who else parses a ClientHello
    "scapy>=2.6",
    "tlslite-ng>=0.8",
    "tls-parser>=2",
]
test = [
    "pytest>=8",
    "pytest-xdist>=3.6",  # runs them in parallel
    "coverage>=7.10",  # the first that follows the programs which tests start
    "hypothesis>=6.100",
    "truststore>=0.10",  # with urllib3: what patch() has to go well with
    "urllib3>=2",
    # whose clients and servers tests/programs runs
    "aiohttp>=3.10",
    "aiosqlite>=0.20",
    "aiosmtpd>=1.4.6",
    "asyncpg>=0.30",
    "geventhttpclient>=2.3",
    "gunicorn[http2]>=27",
    "h2>=4",
    "hypercorn>=0.17",
    "pyftpdlib>=2",
    "pymysql>=1.1",
    "redis>=5",
    "requests>=2.32",
    "websocket-client>=1.8",
    "uvloop>=0.21",
    "uvicorn>=0.54",
    "websockets>=13",
    "tlslite-ng>=0.8",  # a peer of tests/adversary that shares no code with OpenSSL
    "matplotlib>=3.8",  # tests/cli draws a benchmark's results
    "pyelftools>=0.31",  # the independent oracle for openssl/symbols.py
    "atheris>=3; python_version == '3.11'",  # coverage-guided fuzzing; wheels for few Pythons
    *capture,
    *pkcs11,
    *prometheus,
]


SYSTEM = os.environ.get("GREENTLS_OPENSSL") == "system"  # builds the second foundation, openssl/foundation.py
NATIVE = "greentls.openssl._native"
NEEDED = """GREENTLS_OPENSSL=system: greentls.openssl._native cannot be built (see above).
It needs a C compiler, the headers of Python and of OpenSSL 3.0 or newer, and cffi.
Debian and Ubuntu: apt install gcc python3-dev libssl-dev
Fedora: dnf install gcc python3-devel openssl-devel
Alpine: apk add gcc musl-dev python3-dev openssl-dev
cffi comes by itself, except without build isolation: pip install cffi"""
OPTIONS = "-Werror=implicit-function-declaration", "-Wno-pointer-sign", "-Wno-unused-function"


class BuildExtensions(build_ext):
    """Writes _native's source, too: cffi makes it of openssl/declarations.py."""

    def build_extension(self, extension: Extension) -> None:
        if extension.name != NATIVE:
            super().build_extension(extension)
            return
        declarations = runpy.run_path(str(here / "greentls" / "openssl" / "declarations.py"))
        source = pathlib.Path(self.build_temp, "_native.c")
        source.parent.mkdir(parents=True, exist_ok=True)
        try:
            from cffi import FFI

            ffi = FFI()
            ffi.cdef(declarations["CDEF"])
            ffi.set_source(NATIVE, declarations["SOURCE"])
            ffi.emit_c_code(str(source))
            extension.sources = [str(source)]
            super().build_extension(extension)
        except (ImportError, CompileError, LinkError) as error:
            raise SetupError(f"{error}\n{NEEDED}") from None


def compiled() -> list[Extension]:
    """The pump's compiled twin, one file for every Python from 3.10 on, where there is a compiler. Everything works
    without, so that a wheel without a compiler is a pure one; GREENTLS_PURE=1 asks for that."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    header = pathlib.Path(sysconfig.get_path("include"), "Python.h")
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")  # which has no such file
    if os.environ.get("GREENTLS_PURE") or free_threaded or not (shutil.which(compiler[0]) and header.exists()):
        return []
    name = "greentls.openssl._pump"
    return [Extension(name, ["greentls/openssl/_pump.c"], py_limited_api=True, optional=True)]


extensions = compiled()
if SYSTEM:
    limited = not sysconfig.get_config_var("Py_GIL_DISABLED")
    extensions.append(
        Extension(NATIVE, [], libraries=["ssl", "crypto"], extra_compile_args=[*OPTIONS], py_limited_api=limited)
    )

setup(
    name="greentls",
    version=version["__version__"],
    description="OpenSSL callbacks that may wait: TLS for gevent, with shared sessions and asynchronous decisions",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["greentls", "greentls.*"]),
    package_data={"greentls": ["py.typed"]},
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExtensions},
    setup_requires=["cffi>=1.15"] if SYSTEM else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if extensions else {},
    python_requires=">=3.10",
    install_requires=[
        "gevent>=24.2.1",
        "gevent>=24.10.1; python_version >= '3.13'",  # the first with wheels for it; 25.8.1 is for 3.14
        "gevent>=25.8.1; python_version >= '3.14'",
        # 3.0.3: frames on 3.12; 3.1: CPython 3.13; 3.2.2: 3.14. Older ones corrupt frames that a callback switches in.
        "greenlet>=3.0.3",
        "greenlet>=3.1; python_version >= '3.13'",
        "greenlet>=3.2.2; python_version >= '3.14'",
        "pyopenssl>=25.0",  # not called: it keeps cryptography to versions whose binding has not lost what both need
        "cryptography>=44",
        "pymemcache>=4",
        *(["cffi>=1.15"] if SYSTEM else []),
    ],
    extras_require={
        "capture": capture,
        "pkcs11": pkcs11,
        "prometheus": prometheus,
        "test": test,
        "lint": ["ruff==0.17.6", "mypy==2.4.1"],
        "docs": ["sphinx>=7", *pkcs11, *prometheus],  # autodoc imports every public module
        "bench": bench,
    },
    entry_points={"console_scripts": ["greentls = greentls.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Security :: Cryptography",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
)
