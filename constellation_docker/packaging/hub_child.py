"""One conversation with a Hugging Face Hub, in a process of its own.

Run as a program, isolated (`python -I`), with an environment made for it: huggingface_hub keeps its
certificates, its endpoint and its token per process, reads a token from the user's home, and has no overall
deadline. A request comes in as JSON on standard input, the answer goes out as JSON on standard output.

    {"action": "resolve", "endpoint", "token", "repo_id", "revision"}
        → {"commit", "files": [{"path", "size_bytes"}]}
    {"action": "download", …, "directory"}
        → {}
    in both cases, where it fails: {"error": <class>, "status": <HTTP status or null>, "message"}
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

_WORKERS = 4


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    """The commit that a revision means now, and what it holds."""
    from huggingface_hub import HfApi

    # `token=False` keeps huggingface_hub from looking for one by itself.
    hub = HfApi(endpoint=request["endpoint"], token=request["token"] or False)
    found = hub.model_info(request["repo_id"], revision=request["revision"], files_metadata=True, timeout=30)
    files = [{"path": sibling.rfilename, "size_bytes": sibling.size} for sibling in found.siblings or []]
    return {"commit": found.sha, "files": files}


def download(request: dict[str, Any]) -> dict[str, Any]:
    """All files of a commit."""
    from huggingface_hub import snapshot_download

    snapshot_download(
        request["repo_id"],
        revision=request["revision"],
        local_dir=request["directory"],
        endpoint=request["endpoint"],
        token=request["token"] or False,
        max_workers=_WORKERS,
    )
    shutil.rmtree(Path(request["directory"]) / ".cache" / "huggingface", ignore_errors=True)
    cache = Path(request["directory"]) / ".cache"
    if cache.is_dir() and not any(cache.iterdir()):
        cache.rmdir()
    return {}


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    try:
        answer = {"resolve": resolve, "download": download}[request["action"]](request)
    except Exception as error:  # noqa: BLE001 - this process's edge: whatever happened is the answer
        response = getattr(error, "response", None)
        answer = {
            "error": [kind.__name__ for kind in type(error).__mro__[:-2]],
            "status": getattr(response, "status_code", None),
            "errno": getattr(error, "errno", None),
            "message": str(error)[-2000:],
        }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
