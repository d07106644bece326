"""Who may come in: bearer keys from a file and the environment. It knows nothing of bodies.

Keys never stand in the Serve config, which anybody with the dashboard can read.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from serve_app.http.errors import refused
from serve_app.http.routes import OPEN_PATHS

log = logging.getLogger("ray.serve")

# A browser can ask for a key in no other way. Nowhere else is it taken: a browser would send it
# along with what a foreign page makes it ask.
_PAGES = frozenset({"", "/", "/docs"})
# How long a changed file may go unnoticed.
_LOOK_AGAIN_S = 1.0


class ApiKeys:
    """Names the key of a request, or refuses it. The playground's page takes it as a password, too.

    `file` and `environment` hold `name: key` entries, one a line (in the environment also comma
    separated). With neither (None), every request comes in and its header is ignored. A file that
    was given and holds no key lets nobody in. An environment that holds none raises ValueError: a
    secret that failed to arrive must not open the service.
    """

    def __init__(self, file: Path | None = None, environment: str | None = None) -> None:
        self._file = file
        self._from_environment = parse_keys((environment or "").replace(",", "\n"))
        if environment is not None and not self._from_environment:
            raise ValueError("RAY_RERANK_API_KEYS is set and holds no key; unset it, or give keys")
        self.locked = file is not None or environment is not None
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0
        self._keys: dict[bytes, str] = {}
        if self.locked:
            self._load()

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> str:
        """Return the name of the caller's key, empty when there are no keys. Raises a 401."""
        if not self.locked or path in OPEN_PATHS:
            return ""
        self._look_again()
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        asked = b"basic" if path in _PAGES and scheme.lower() == b"basic" else b"bearer"
        key = _password(key) if asked == b"basic" else key.strip()
        given = hashlib.sha256(key).digest()
        found = ""
        # All are compared, and none with ==: the time taken tells nothing.
        for known, name in self._keys.items():
            if hmac.compare_digest(given, known):
                found = name
        if scheme.lower() != asked or not found:
            # These words make litellm's providers raise their authentication error.
            message = "invalid api token: Incorrect API key provided; send Authorization: Bearer"
            how = 'Basic realm="the key is the password"' if path in _PAGES else "Bearer"
            raise refused(401, "authentication_error", message, www_authenticate=how)
        return found

    def _look_again(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_AGAIN_S:
            return
        self._looked = now
        try:
            if self._stamp != _stamp(self._file):
                self._load()
                log.info("read %d API keys again", len(self._keys))
        except (OSError, ValueError):
            # Half-written or gone: the keys that were good stay good.
            log.exception("the API key file cannot be read; the former keys stay")

    def _load(self) -> None:
        keys = dict(self._from_environment)
        if self._file is not None:
            stamp = _stamp(self._file)
            keys |= parse_keys(self._file.read_text(encoding="utf-8"))
            self._stamp = stamp
        self._keys = keys


def parse_keys(text: str) -> dict[bytes, str]:
    """Return the name of each key by the key's SHA-256. Empty lines and `#` lines are skipped."""
    keys: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, key = line.partition(":")
        if not colon or not name.strip() or not key.strip():
            raise ValueError(f"API keys, line {number}: write `name: key`")
        keys[hashlib.sha256(key.strip().encode()).digest()] = name.strip()
    return keys


def _password(encoded: bytes) -> bytes:
    """Return the password of Basic credentials, nothing where there is none."""
    try:
        return binascii.a2b_base64(encoded.strip()).partition(b":")[2]
    except binascii.Error:
        return b""


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size
