"""Client libraries that cannot be installed beside ours, run in an environment of their own.

Reads calls on stdin, a line of JSON each, and answers each with one on stdout: what the library
gave, or the name of the error that it raised. It knows nothing of this repository but URLs.
"""

import json
import os
import sys


def litellm_rerank(**arguments):
    """Return the indices of litellm's answer, best first."""
    # Else it asks the internet for prices when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    return [result["index"] for result in litellm.rerank(**arguments).results]


def infinity_rerank(base_url, token, **body):
    """Return indices and tokens of infinity's answer, or the message of its refusal."""
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import HTTPValidationError, RerankInput

    with AuthenticatedClient(base_url=base_url, token=token) as client:
        answer = rerank.sync(client=client, body=RerankInput(**body))
    if isinstance(answer, HTTPValidationError):
        return {"refused": answer.detail[0].msg}
    return {
        "indices": [result.index for result in answer.results],
        "tokens": answer.usage.total_tokens,
    }


def xinference_rerank(base_url, api_key, uid=None, **asked):
    """Return the names of the models that Xinference's client lists, and what one gave: that with
    the uid, or the first."""
    from xinference_client import RESTfulClient

    client = RESTfulClient(base_url, api_key=api_key)
    names = list(client.list_models())
    return {
        "models": names,
        "results": client.get_model(uid or names[0]).rerank(**asked)["results"],
    }


CALLS = {"litellm": litellm_rerank, "infinity": infinity_rerank, "xinference": xinference_rerank}


def main():
    """Answer calls until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # The libraries print, too.
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"gave": CALLS[name](**arguments)}
        except Exception as error:
            answer = {"raised": type(error).__name__, "message": str(error)[:500]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
