"""Runs benchmarks as the scripts that they are, small, one after another on one Ray and Serve.

Takes a folder and commands on the command line; the folder gets a picture each, and a line of JSON
each in `answers`, because Ray prints, too. It is a process of its own because a session of tests
has a Ray of its own, with other resources.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.bench_job import local_bucket
from benchmarks.local_serve import local_serve

ROOT = Path(__file__).parents[2]


def run(command, picture):
    """Return the last line that a benchmark prints, or its traceback."""
    name, *options = command.split()
    sys.argv = [name, *options, "--small", "--svg", str(picture)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(ROOT / "benchmarks" / name), run_name="__main__")
        return {"found": json.loads(said.getvalue().splitlines()[-1])}
    except (Exception, SystemExit):
        return {"error": f"{said.getvalue()[-1000:]}\n{traceback.format_exc()[-2000:]}"}


def main(folder, *commands):
    """Run them all, whatever fails."""
    # That of tests in the process which started this one has no bucket for it.
    os.environ.pop("AWS_ENDPOINT_URL", None)
    # The bucket first: a Ray has the environment of when it started.
    with local_bucket(), local_serve(gpus=8), open(Path(folder) / "answers", "w") as answers:
        for command in commands:
            answer = run(command, Path(folder) / f"{command}.svg")
            answers.write(json.dumps({"command": command, **answer}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
