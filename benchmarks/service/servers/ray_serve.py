"""Ray Serve with its batches, behind the HAProxy that it brings, four times as fast as its own proxy."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")
os.environ.setdefault("RAY_SERVE_HAPROXY_NBTHREAD", "1")
os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve

from benchmarks.service.servers.ctranslate import BATCH, CORES, PORT, Engine


@serve.deployment(num_replicas=1, max_ongoing_requests=512, ray_actor_options={"num_cpus": 1})
class Translate:
    def __init__(self) -> None:
        self.engine = Engine()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.002, max_concurrent_batches=CORES)
    async def batch(self, texts: list[str]) -> list[str]:
        return await asyncio.to_thread(self.engine.translate, texts)

    async def __call__(self, request: Any) -> dict[str, list[str]]:
        texts = (await request.json())["q"]
        return {"translatedText": await asyncio.gather(*map(self.batch, texts))}


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    application: Any = Translate
    serve.run(application.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
