"""Ray's own use of pydantic warns when Serve is imported; here once, before any test does."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401
