"""The life of a model, over the gateway: package, deploy, ask, list, a second version, roll back, delete; pull and push.

    export CONSTELLATION_URL=http://127.0.0.1:8700 CONSTELLATION_API_KEY=constellation_…
    python examples/gateway/lifecycle.py --environment dev --repository URL --second-repository URL

Needs Python and httpx, and nothing of ours: it is what a backend in any language does.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import httpx

DEADLINE_SECONDS = 900
QUESTION = "I loved this film, the acting was wonderful."


class Gateway:
    """The few calls of the gateway that a backend needs.

    Args:
        url: The gateway's address.
        key: An API key or a token.
    """

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120, trust_env=False
        )

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One call; an error ends the program with the gateway's own sentence."""
        answer = self._http.request(method, path, json=body)
        content: dict[str, Any] = answer.json()
        if answer.is_error:
            raise SystemExit(f"{method} {path}: {answer.status_code} {content['error']['message']}")
        print(f"{method} {path} → {answer.status_code} {json.dumps(content)[:160]}")
        return content

    def wait(self, path: str, wanted: str, *, environment: str | None = None) -> dict[str, Any]:
        """Look until something has a status; one that failed ends the program with the reason."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            found: dict[str, Any] = self._http.get(path).raise_for_status().json()
            if environment is not None:
                in_each = {item["environment"]: item for item in found["environments"]}
                found = in_each.get(environment, {"status": "pending", "last_error": None})
            if found["status"] == wanted:
                print(f"{path} is {wanted}")
                return found
            if found["status"] == "failed":
                raise SystemExit(f"{path} failed: {found['last_error']}")
            time.sleep(1)
        raise SystemExit(f"{path} was not {wanted} within {DEADLINE_SECONDS} s.")


def register(gateway: Gateway, name: str, version: str, repository: str) -> str:
    """Register a model version and wait until it is packaged; its model_id."""
    body = {
        "model_name": name,
        "model_version": version,
        "repo_url": repository,
        "branch": None,
        "model_card": {"description": "How a sentence feels.", "data_used": "Reviews.", "dependencies": []},
    }
    model_id = str(gateway.call("POST", "/docker/models/", body)["model_id"])
    gateway.wait(f"/docker/models/{model_id}/status/", "packaged")
    return model_id


def deploy(gateway: Gateway, model_id: str, environment: str) -> str:
    """Deploy a version and wait until it answers; its endpoint's address."""
    gateway.call("POST", f"/docker/models/{model_id}/deploy/", {"environment": environment, "replicas": 1})
    path = f"/docker/models/{model_id}/status/"
    return str(gateway.wait(path, "deployed", environment=environment)["endpoint_url"])


def ask(endpoint: str) -> str:
    """Ask the model itself: its endpoint speaks as Hugging Face's do. The best label."""
    answer = httpx.post(endpoint, json={"inputs": QUESTION}, timeout=60, trust_env=False).raise_for_status()
    best = answer.json()[0]
    print(f"{endpoint} says {best}")
    return str((best[0] if isinstance(best, list) else best)["label"])


def move_image(gateway: Gateway, repository: str, tag: str, target: str) -> None:
    """Pull an image to the building engine, and push it elsewhere."""
    pulled = gateway.call("POST", "/docker/images/pull/", {"repository": repository, "tag": tag})
    gateway.wait(f"/docker/images/{pulled['image_id']}/status/", "completed")
    body = {"image_name": repository, "tag": tag, "repository": target}
    pushed = gateway.call("POST", "/docker/images/push/", body)
    gateway.wait(f"/docker/images/{pushed['image_id']}/status/", "completed")


def main() -> None:
    """Go through the life of a model."""
    parser = argparse.ArgumentParser(description="The life of a model, over the gateway.")
    parser.add_argument("--name", default="examples/gateway-sentiment")
    parser.add_argument("--environment", default="dev")
    parser.add_argument("--repository", required=True, help="where the first version's code is")
    parser.add_argument("--second-repository", help="where the second version's code is, to roll back from")
    parser.add_argument("--image", help="an image to pull, as repository:tag")
    parser.add_argument("--push-to", help="the repository to push that image to")
    arguments = parser.parse_args()
    url = os.environ.get("CONSTELLATION_URL", "http://127.0.0.1:8700")
    gateway = Gateway(url, os.environ["CONSTELLATION_API_KEY"])
    where = arguments.environment

    first = register(gateway, arguments.name, "1.0.0", arguments.repository)
    endpoint = deploy(gateway, first, where)
    print("label", ask(endpoint))
    gateway.call("GET", f"/docker/models/?name={arguments.name}")
    made = [first]
    if arguments.second_repository:
        second = register(gateway, arguments.name, "2.0.0", arguments.second_repository)
        made.append(second)
        deploy(gateway, second, where)
        gateway.call("POST", f"/docker/models/{second}/rollback/", {"environment": where})
        gateway.wait(f"/docker/models/{first}/status/", "deployed", environment=where)
        print("label", ask(endpoint))
    if arguments.image and arguments.push_to:
        repository, _, tag = arguments.image.rpartition(":")
        move_image(gateway, repository, tag, arguments.push_to)
    for model_id in reversed(made):
        gateway.call("DELETE", f"/docker/models/{model_id}/")
        gateway.wait(f"/docker/models/{model_id}/status/", "deleted")
    print("done")


if __name__ == "__main__":
    main()
