"""Serves an exported language model: the engine that fits its folder as a child process, with our service in front.

llama.cpp runs GGUF files. Other formats have servers of their own, which are named instead of an answer that nobody has tested.
"""

import argparse
import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mangakd.core.errors import UserError
from mangakd.runtime.language_manifest import LanguageManifest, read

if TYPE_CHECKING:
    from mangakd.runtime.question import Limits

OTHERS = {
    "transformers": "vLLM serves a merged folder: `vllm serve {folder}` (docs/how-to/serving.md). Or export it as GGUF: "
    "`mangakd export export=gguf student={folder} validation=<file>`",
    "openvino": "OpenVINO Model Server or openvino-genai serve it. Or export it as GGUF: `mangakd export export=gguf student=…`",
}
THREADS = "threads"  # in the manifest's runtime: a name of ours for two settings of llama.cpp


def serve_language(options: argparse.Namespace) -> None:
    """options: of serve.parser(). Raises UserError for a folder that nothing here can serve, and when the engine gives up."""
    manifest = read(options.folder)
    if manifest.engine in OTHERS:
        other = OTHERS[manifest.engine].format(folder=options.folder)
        raise UserError(
            f"{options.folder} is a language model of {manifest.engine}, which mangakd does not serve. {other}."
        )
    settings = engine_settings(manifest, options.context, options.slots, options.threads)
    asyncio.run(_serve(manifest, settings, options))


def engine_settings(manifest: LanguageManifest, context: int | None, slots: int, threads: int | None) -> dict[str, Any]:
    """For language_child.parameters: the settings with which the model was measured, unless the command gives others.

    Raises UserError for a context that is longer than the model's.
    """
    if context is not None and context > manifest.context:
        raise UserError(f"--context {context} is more than {manifest.folder} reads: at most {manifest.context} tokens.")
    runtime: Mapping[str, Any] = manifest.runtime
    return {
        "model": str(manifest.model), "name": manifest.variant, "context": context or manifest.context, "slots": slots,
        "threads": threads or runtime.get(THREADS, 1),
        "runtime": {key: value for key, value in runtime.items() if key != THREADS},
    }  # fmt: skip


async def _serve(manifest: LanguageManifest, engine_words: dict[str, Any], options: argparse.Namespace) -> None:
    try:
        from mangakd.runtime.language_engine import Engine
        from mangakd.runtime.language_service import LanguageService, LanguageSettings, create_language_app
        from mangakd.runtime.question import Limits
        from mangakd.runtime.server import Server, config
    except ImportError as error:
        raise UserError(
            f"serving a GGUF needs xllamacpp, fastapi, uvicorn and httpx ({error}). Install them with: pip install "
            "xllamacpp fastapi uvicorn httpx"
        ) from error
    limits = Limits(options.max_texts, options.max_characters, options.max_body)
    settings = LanguageSettings(
        options.slots, options.queue, min(options.max_tokens, engine_words["context"]), limits=limits
    )
    around = _rollout(options, limits)
    engine = Engine(engine_words)
    try:
        await engine.start()
        service = LanguageService(manifest, engine, settings)
        setup = config(
            create_language_app(service, around), options.host, options.port, grace=1
        )  # patience is what streams get
        server = Server(setup, service, options.linger, options.patience)
        keeper = asyncio.create_task(engine.keep())
        keeper.add_done_callback(lambda _: setattr(server, "should_exit", True))
        await server.serve()
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper  # raises what ended it
    finally:
        await engine.stop()
    if engine.failure:
        raise UserError(engine.failure)


def _rollout(options: argparse.Namespace, limits: "Limits") -> Any:
    """The middleware of a rollout, None without one. Before the engine starts, for the mistakes of its yaml."""
    if options.rollout is None:
        return None
    from mangakd.runtime.rollout.start import prepare
    from mangakd.runtime.service import Settings

    settings = Settings(queue=max(options.queue, limits.texts), limits=limits)  # its limit of bytes is read
    return prepare(options.rollout, options.incumbent, options.folder, settings, 1).around(None)
