"""Stands for trustme on an interpreter that cannot have it, because of cffi: the certificates are
files, which tests/run has made by trustme with another interpreter.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

DIRECTORY = Path(os.environ["CASYNC_CERTIFICATES"])


class CA:
    """The one authority."""

    def issue_cert(self, *_: str) -> LeafCert:
        return LeafCert()

    def configure_trust(self, context: ssl.SSLContext) -> None:
        context.load_verify_locations(DIRECTORY / "client.pem")


class LeafCert:
    """The one server's certificate, for localhost and 127.0.0.1."""

    def configure_cert(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(DIRECTORY / "server.pem", DIRECTORY / "server.key")
