"""Amazon Bedrock's Converse, through boto3, whose calls block: each runs in a thread of its own pool."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling.api.client_errors import LENGTH, installed
from mangakd.labelling.api.limits import retry_after
from mangakd.labelling.api.wire import (
    CallError,
    Plain,
    Reading,
    Reply,
    Usage,
    Wire,
    connection_error,
    plain_address,
    status_error,
    whole,
)
from mangakd.labelling.provider import Answer, Reason, Request
from mangakd.models.sampling import Sampling

ENDED = ("end_turn", "stop_sequence", "tool_use")
REFUSED = ("guardrail_intervened", "content_filtered")
KEYS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID")


@dataclass(kw_only=True)
class BedrockWire(Wire):
    """region: None for the one of the AWS configuration. base_url: None for the region's own. threads: calls at a time.

    Credentials come from the environment or from what boto3 finds beside it. Bedrock has no idempotency keys.
    """

    name = "bedrock"
    model: str
    region: str | None = None
    base_url: str | None = None
    timeout: float = 600.0
    threads: int = 32
    stop: Sequence[str] = ()
    omit: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        region = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None and self.base_url is None:
            raise UserError("provider.region is not set: give the AWS region, such as provider.region=us-east-1.")
        self.region = region
        url = self.base_url or f"https://bedrock-runtime.{region}.amazonaws.com"
        self.address = plain_address(url, "provider.base_url")

    def body(self, request: Request, sampling: Sampling) -> Plain:
        if request.schema is not None:
            raise UserError(
                "provider=bedrock cannot hold an answer to a JSON schema: Converse has no parameter for it. "
                "Use provider=openai or anthropic."
            )
        system = [{"text": content} for role, content in request.prompt if role == "system"]
        turns = [{"role": role, "content": [{"text": content}]} for role, content in request.prompt if role != "system"]
        inference: dict[str, Any] = {"maxTokens": sampling.max_new_tokens, "temperature": sampling.temperature}
        if sampling.top_p < 1:
            inference["topP"] = sampling.top_p
        if self.stop:
            inference["stopSequences"] = [*self.stop]
        body: dict[str, Any] = {
            "modelId": self.model,
            "messages": turns,
            "inferenceConfig": {name: value for name, value in inference.items() if name not in self.omit},
        }
        if system:
            body["system"] = system
        return {**body, **self.extra}

    async def send(self, key: str, body: Plain) -> Reply:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, body)
        except CallError:
            raise
        except Exception as error:
            raise _call_error(error) from error

    def _call(self, body: Plain) -> Reply:
        reply = self._client.converse(**body)
        headers = reply.pop("ResponseMetadata", {}).get("HTTPHeaders", {})
        return Reply(json.dumps(reply, ensure_ascii=False, default=str), headers)

    def read(self, reply: Plain) -> Reading:
        blocks, finish = reply["output"]["message"]["content"], str(reply.get("stopReason"))
        text = "".join(block["text"] for block in blocks if "text" in block)
        reasoning = [
            block["reasoningContent"].get("reasoningText") or {} for block in blocks if "reasoningContent" in block
        ]
        thought = "".join(each.get("text") or "" for each in reasoning)
        reason: Reason = "refused" if finish in REFUSED else "ended" if finish in ENDED else "cut"
        usage = _usage(reply.get("usage"))
        return Reading(Answer(text, reason, usage.answer or 0, thought=thought), finish, usage)

    def prepare(self) -> None:
        _ = self._client

    async def close(self) -> None:
        if "_pool" in vars(self):
            self._pool.shutdown(wait=False)
            del self._pool

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "bedrock")

    @cached_property
    def _client(self) -> Any:
        boto3 = installed("boto3")  # the default session would keep the credentials of its first client
        config = installed("botocore.config").Config(
            retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=10, read_timeout=self.timeout,
            max_pool_connections=self.threads, parameter_validation=False,
        )  # fmt: skip
        return boto3.Session().client(
            "bedrock-runtime", region_name=self.region, endpoint_url=self.base_url, config=config
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, (os.environ.get(name) for name in KEYS)))

    @property
    def cure(self) -> str:
        return (
            f"Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_BEARER_TOKEN_BEDROCK), provider.region={self.region} "
            f"and the account's access to provider.model={self.model}."
        )


def _call_error(error: Exception) -> CallError:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping) and "ResponseMetadata" in response:
        meta = response["ResponseMetadata"]
        headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
        status = meta.get("HTTPStatusCode", 500)
        if status >= 400:
            return status_error(status, str(error)[:LENGTH], headers, retry_after(headers))
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "NoRegionError", "ProfileNotFound"):
        return CallError("fatal", str(error))
    return connection_error(error)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, Mapping):
        return Usage(None, None)
    prompt, cache_reads = whole(usage.get("inputTokens")), whole(usage.get("cacheReadInputTokens")) or 0
    cache_writes = whole(usage.get("cacheWriteInputTokens")) or 0
    return Usage(
        None if prompt is None else prompt + cache_reads + cache_writes, whole(usage.get("outputTokens")), cache_reads
    )
