"""What a strong engineer writes by hand: FastAPI, and sentences that wait while all cores are busy go together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from benchmarks.service.servers.ctranslate import BATCH, CORES, PORT, Engine

waiting: asyncio.Queue[tuple[str, asyncio.Future[str]]] = asyncio.Queue()


async def lane(engine: Engine, threads: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    while True:
        batch = [await waiting.get()]
        while len(batch) < BATCH and not waiting.empty():
            batch.append(waiting.get_nowait())
        texts = await loop.run_in_executor(threads, engine.translate, [text for text, _ in batch])
        for (_, future), text in zip(batch, texts, strict=True):
            if not future.done():
                future.set_result(text)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    engine, threads = Engine(), ThreadPoolExecutor(CORES)
    lanes = [asyncio.create_task(lane(engine, threads)) for _ in range(CORES)]
    yield
    for each in lanes:
        each.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/translate")
async def translate(request: Request) -> JSONResponse:
    loop = asyncio.get_running_loop()
    futures = []
    for text in (await request.json())["q"]:
        futures.append(loop.create_future())
        waiting.put_nowait((text, futures[-1]))
    return JSONResponse({"translatedText": await asyncio.gather(*futures)})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, access_log=False, log_level="warning")
