"""A model folder sent to a stand-in of the hub's API, over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from gradistill.cli.app import app
from gradistill.commands import push as module
from gradistill.errors import ModelError, RecipeError

CARD = "---\nlicense: unknown\ntags:\n- gradistill\n---\n\n# A student\n"


class Hub(BaseHTTPRequestHandler):
    """What the client asks of the hub when it makes a repository and commits files that are kept in git itself."""

    sent: dict[str, bytes]
    asked: list[tuple[str, Any]]
    refuses = False

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        lines = [json.loads(line) for line in raw.decode().splitlines() if line.strip()]
        type(self).asked.append((path, lines))
        if self.refuses:
            self._answer(401, {"error": "Invalid credentials"})
        elif path == "/api/repos/create":
            self._answer(200, {"url": f"{self.server.address}/me/student", "id": "me/student"})  # pyright: ignore
        elif "/preupload/" in path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in lines[0]["files"]]
            self._answer(200, {"files": files, "commitOid": "0" * 40})
        elif "/commit/" in path:
            for line in lines:
                if line["key"] == "file":
                    type(self).sent[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.address}/me/student/commit/{'1' * 40}"  # pyright: ignore
            self._answer(200, {"commitUrl": url, "commitOid": "1" * 40, "success": True})
        else:
            self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(200, {"id": "me/student", "sha": "0" * 40, "siblings": []})

    def _answer(self, code: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    kind = type("OwnHub", (Hub,), {"sent": {}, "asked": []})
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    client = module.HfApi
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the server is on this machine
    monkeypatch.setattr(module, "HfApi", lambda **given: client(server.address, "a-token", **given))
    yield kind
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with more in it than is sent."""
    files = {"README.md": CARD, "config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}",
             "recipe.yaml": "method: kd\nstudent: {checkpoint: /home/jane.doe/acme/student}\n",
             "metrics.json": '{"data": "/home/jane/rows"}',
             "checkpoints/checkpoint-1/model.safetensors": "old", "audit/examples.jsonl": "private rows"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


SENT = ["README.md", "config.json", "model.safetensors", "recipe.yaml", "tokenizer.json"]


def test_what_a_model_needs_is_sent_and_nothing_else(folder: Path, hub: type[Hub]) -> None:
    found = module.push(folder, "me/student", license="apache-2.0")
    assert sorted(hub.sent) == found["files"] == SENT
    assert hub.sent["model.safetensors"] == b"weights"
    sent = yaml.safe_load(hub.sent["recipe.yaml"])
    assert sent == {"method": "kd", "student": {"checkpoint": "student"}}, "nobody's folders"
    card = hub.sent["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1]) == {"license": "apache-2.0", "tags": ["gradistill"]}
    assert card.endswith("# A student\n")
    assert (folder / "README.md").read_text(encoding="utf-8") == CARD, "the folder stays as it is"
    created = next(lines for path, lines in hub.asked if path == "/api/repos/create")
    assert created[0]["name"] == "student"
    assert "private" in json.dumps(created[0])


def test_an_adapter_is_sent_with_its_weights_and_a_folder_without_weights_is_refused(
    folder: Path, hub: type[Hub]
) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {*module.push(folder, "me/lora")["files"]}
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError):
        module.push(folder, "me/lora")


def test_a_license_stands_in_a_card_without_front_matter_too(folder: Path, hub: type[Hub]) -> None:
    (folder / "README.md").write_text("# My model\n", encoding="utf-8")
    module.push(folder, "me/student", license="mit")
    assert hub.sent["README.md"].decode() == "---\nlicense: mit\n---\n# My model\n"


@pytest.mark.parametrize(
    ("card", "sent"),
    [
        ("---\nJust a rule\n---\n", "---\nlicense: mit\n---\n---\nJust a rule\n---\n"),
        ("---\nlicense: x\n---", "---\nlicense: mit\n---\n"),
    ],
)
def test_front_matter_of_a_card_is_a_mapping(folder: Path, hub: type[Hub], card: str, sent: str) -> None:
    (folder / "README.md").write_text(card, encoding="utf-8")
    module.push(folder, "me/student", license="mit")
    assert hub.sent["README.md"].decode() == sent


def test_a_dry_run_sends_nothing(folder: Path, hub: type[Hub]) -> None:
    assert module.push(folder, "me/student", dry_run=True)["files"] == SENT
    assert hub.asked == []


def test_a_refusal_has_what_to_do(folder: Path, hub: type[Hub]) -> None:
    hub.refuses = True
    with pytest.raises(ModelError, match=r"(?s)could not be sent to me/student.*HF_TOKEN"):
        module.push(folder, "me/student")


@pytest.mark.parametrize("name", ["student", "me/a/b", "me/st udent", "", "-me/x--y"])
def test_names_that_no_repository_can_have(name: str, folder: Path, hub: type[Hub]) -> None:
    with pytest.raises(RecipeError, match="owner/name"):
        module.push(folder, name)
    assert hub.asked == []


def test_a_license_that_is_no_id_is_refused_before_anything_is_sent(folder: Path, hub: type[Hub]) -> None:
    with pytest.raises(RecipeError, match=r"(?s)'Apache 2\.0' is no id.*--license apache-2\.0"):
        module.push(folder, "me/student", license="Apache 2.0")
    assert module.push(folder, "me/student", license="bsl-1.0", dry_run=True)  # not listed here


def test_a_folder_without_a_card_or_a_model_is_refused(folder: Path, hub: type[Hub]) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(ModelError, match=r"no README\.md"):
        module.push(folder, "me/student")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="its run has not ended"):
        module.push(folder, "me/student")
    assert hub.asked == []


def test_the_command_asks_first(folder: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradistill.cli.push_command.confirmed", lambda question: False)
    run = CliRunner().invoke(app, ["push", str(folder), "me/student"])
    assert (run.exit_code, hub.asked) == (1, [])
    assert "nothing was sent" in run.output
    run = CliRunner().invoke(app, ["push", str(folder), "me/student", "--yes", "--public"])
    assert run.exit_code == 0, run.output
    assert "sent to" in run.output
