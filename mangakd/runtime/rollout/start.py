"""Builds a rollout for `mangakd serve`: reads the yaml, loads the incumbent, checks that both answer the same questions."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.requests import Request

from mangakd.core.errors import UserError
from mangakd.runtime.language_manifest import is_language
from mangakd.runtime.model import Model, load
from mangakd.runtime.rollout.front import Front
from mangakd.runtime.rollout.rollout import Rollout
from mangakd.runtime.rollout.settings import Settings, read
from mangakd.runtime.rollout.sides import AppSide, Question, Reply, Side, UrlSide
from mangakd.runtime.routes import path_of
from mangakd.runtime.service import Service, respond
from mangakd.runtime.service import Settings as ServiceSettings
from mangakd.runtime.watch import App

log = logging.getLogger("mangakd.rollout")
MANIFESTS = ("manifest.json", "language.json")  # of an exported folder; it holds the hashes of all other files


class FolderSide(AppSide):
    """An exported folder in this process, with a queue and a thread of its own."""

    def __init__(self, model: Model, settings: ServiceSettings):
        self.model, self._service = model, Service(model, replace(settings, aside=True))
        super().__init__(self._respond)

    async def ask(self, question: Question) -> Reply:
        if path_of(question.path, self.model) is None:
            return Reply(404, [(b"content-type", b"application/json")], b'{"error": "Not Found"}')
        return await super().ask(question)

    async def stop(self) -> None:
        self._service.batcher.stop()

    async def _respond(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = path_of(scope["path"], self.model)
        assert path is not None
        await (await respond(self._service, path, Request(scope, receive)))(scope, receive, send)


@dataclass(frozen=True)
class Prepared:
    """student_settings: of the student's service."""

    settings: Settings
    student: Path
    incumbent: Side
    student_settings: ServiceSettings

    def around(self, model: Model | None) -> Callable[[Any], Callable[[App], App]]:
        """The middleware for create_app and create_language_app. model: the student, None for a language model."""
        if isinstance(self.incumbent, FolderSide) and model is not None:
            check_alike(model, self.incumbent.model)
        rollout = Rollout(self.settings, fingerprint(self.student))
        most = self.student_settings.limits.body
        return lambda service: lambda app: Front(app, self.incumbent, rollout, lambda: service.draining, most)


def prepare(file: str, incumbent: str | None, student: str, settings: ServiceSettings, threads: int) -> Prepared:
    """Raises UserError for a yaml or an incumbent that cannot be used, before the student is loaded."""
    rollout = read(file, incumbent)
    if "://" not in rollout.incumbent and not Path(rollout.incumbent).expanduser().is_dir():
        raise UserError(
            f"incumbent: {rollout.incumbent} is neither a folder nor a URL. Give an exported folder, or a URL with its http://."
        )
    if is_language(student) and "://" not in rollout.incumbent:
        raise UserError(
            f"incumbent: {rollout.incumbent} is a folder, and the student {student} is a language model, whose engine runs "
            "alone. Give the URL of a service with OpenAI's API: another `mangakd serve`, vLLM, or a managed model's."
        )
    aside = replace(settings, aside=rollout.shadow)  # the student of a shadow must not block the incumbent's answers
    return Prepared(rollout, Path(student).expanduser(), _side(rollout, settings, threads), aside)


def fingerprint(folder: Path) -> str:
    """Name and hash of a student. A folder without a manifest is known by the names and sizes of its files."""
    digest = hashlib.sha256()
    for name in MANIFESTS:
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
            return f"{folder.name} {digest.hexdigest()[:16]}"
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
    return f"{folder.name} {digest.hexdigest()[:16]}"


def check_alike(student: Model, incumbent: Model) -> None:
    """Raises UserError for two that answer different questions. Warns of labels that only one of them knows."""
    if student.use != incumbent.use:
        raise UserError(
            f"the student answers with {student.gives} and the incumbent {incumbent.manifest.folder} with {incumbent.gives}. "
            "A rollout needs two that answer the same questions."
        )
    if apart := sorted(set(student.labels) ^ set(incumbent.labels)):
        log.warning(
            "student and incumbent do not both know the labels %s, which will count as disagreement", apart[:10]
        )


def _side(settings: Settings, service: ServiceSettings, threads: int) -> Side:
    incumbent = settings.incumbent
    if "://" in incumbent:
        if not incumbent.startswith(("http://", "https://")):
            raise UserError(
                f"incumbent: {incumbent} is no URL that can be asked. Give http://… or https://…, or a folder."
            )
        return UrlSide(incumbent.rstrip("/"), settings.timeout)
    if is_language(incumbent):
        raise UserError(
            f"incumbent: {incumbent} is a language model, which needs an engine of its own. Start it with "
            f"`mangakd serve {incumbent} --port 8001` and give incumbent: http://127.0.0.1:8001."
        )
    return FolderSide(load(incumbent, threads), service)
