"""What an answer of an object store means: an outage, or something that people must set right."""

from __future__ import annotations

import errno
import re

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from pipelines.commits.store import OutputUnusable
from pipelines.retries import first_line

# Without credentials the library asks the machine's own cloud for them, at these paths.
_METADATA = ("/latest/api/token", "/computeMetadata/", "/metadata/identity", "token request")
_CREDENTIALS = {
    "s3": 'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (of a profile: eval "$(aws configure'
    ' export-credentials --format env)")',
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_AZURE = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or a SAS token)"


def is_no_bucket(error: Exception) -> bool:
    """Say whether the bucket is not there, rather than a file in it."""
    return any(word in str(error) for word in ("NoSuchBucket", "ContainerNotFound"))


def meaning(error: Exception, address: str) -> Exception:
    """Return an OSError that says to try again, or OutputUnusable with the fix.

    `error` is one of obstore's, met at `address`.
    """
    text, scheme = str(error), address.partition("://")[0]
    bucket = "/".join(address.split("/")[:3])
    unsaid = isinstance(error, UnauthenticatedError) or "Account must be specified" in text
    if is_no_bucket(error):
        said = f"there is no bucket {bucket}"
    elif unsaid or any(word in text for word in _METADATA):
        said = f"{bucket} wants credentials: set {_CREDENTIALS.get(scheme, _AZURE)}"
    elif isinstance(error, PermissionDeniedError) or "403 Forbidden" in text:  # so of lists
        code = re.search("<Code>(.*?)</Code>", text)
        said = (
            f"{address}: no permission ({code[1] if code else 'Forbidden'}); the job lists, reads,"
            " writes and deletes there"
        )
    else:
        return OSError(errno.EREMOTEIO, first_line(error))
    return OutputUnusable(said, "output")
