"""TLS of the gateway: the certificate and key of two files, taken anew when they change, without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from constellation_docker.errors import InvalidInput

Stamp = tuple[tuple[int, int, int], ...]

_log = logging.getLogger(__name__)


class Certificates:
    """A server's TLS context whose certificate can be exchanged under traffic.

    Each handshake is handed to the newest context that could be read whole (the SNI callback runs also where a client
    names no server), so that no handshake meets a new certificate with the old key. Connections that stand keep theirs.

    Args:
        certificate: The chain (PEM).
        key: Its private key (PEM).

    Raises:
        InvalidInput: They cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        try:
            self._stamp = self._look()
            self._newest = self._read()
            self.context = self._read()
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"The certificate {certificate} with the key {key} cannot be used: {_reason(error)}.",
                remedy="gateway.tls_certificate and gateway.tls_key name PEM files that belong together.",
            ) from error
        self.context.sni_callback = self._hand_over

    def reload_if_changed(self) -> bool:
        """Look at the files, and use them if they have changed. A pair that cannot be used leaves the old one in use.

        Returns:
            Whether another certificate is in use now.
        """
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return False
            newest = self._read()
        except (OSError, ssl.SSLError) as error:
            # Perhaps only one of the two is written yet; the next look tells.
            _log.warning("The changed TLS certificate cannot be used yet: %s.", _reason(error))
            return False
        self._newest, self._stamp = newest, stamp
        _log.info("The gateway uses the changed TLS certificate %s.", self._files[0])
        return True

    def _look(self) -> Stamp:
        facts = [path.stat() for path in self._files]
        return tuple((fact.st_mtime_ns, fact.st_size, fact.st_ino) for fact in facts)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        certificate, key = self._files
        context.load_cert_chain(certificate, key, password=_no_password)
        return context

    def _hand_over(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._newest


def _no_password() -> str:
    # Without it OpenSSL would ask at the terminal and wait.
    raise ssl.SSLError("the key is encrypted")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
