"""What is in an image, over HTTP: mindeit serve FILE, then curl --data-binary @bird.jpg http://localhost:3000/classify"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Optional, cast

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mindeit.config import option, parse
from mindeit.errors import UserError, run_script
from mindeit.predict.predictor import Prediction, Predictor

PATIENCE = 30  # seconds for the body of a request


@dataclass(frozen=True)
class Limits:
    """``queue``: requests at once, at work or waiting; the others are of one image."""

    queue: int = option(256, "requests at work or waiting; who comes then is told 503", at_least=1)
    megabytes: float = option(10, "of a body", above=0)
    megapixels: float = option(50, "of an image", above=0)
    threads: Optional[int] = option(None, "that decode and compute; None: one for each core", at_least=1)


@dataclass(frozen=True)
class Options(Limits):
    """Serving"""

    file: str = option("", "an exported file or a checkpoint", positional=True, required=True)
    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0: at all of the machine's")
    port: int = option(3000, "to listen at", at_least=1, at_most=65535)


class Service:
    """The application, for any ASGI server: ``Service(predictor, Limits()).app``.

    One process, so nothing outlives it. Its threads (one for each core) decode and compute; requests beyond these wait,
    up to ``queue`` in all; who comes then is told 503 and to try again. 400: the body is no image, or one of more than
    ``megapixels``, which is seen before it is decoded; 413: more than ``megabytes``, of which no more is read; 408: it
    took more than half a minute to come. GET /health is answered meanwhile.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits
        self._threads = ThreadPoolExecutor(limits.threads or os.cpu_count())
        self._present = 0
        Image.MAX_IMAGE_PIXELS = round(limits.megapixels * 1e6)
        self._predictor.predict(np.zeros((32, 32, 3), np.uint8))  # compiles, if anything does, before requests come
        routes = [Route("/classify", self._classify, methods=["POST"]), Route("/health", self._health)]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _told})

    async def _classify(self, request: Request) -> JSONResponse:
        if self._present >= self._limits.queue:
            raise HTTPException(503, f"{self._present} requests are waiting; try again", {"Retry-After": "1"})
        self._present += 1
        try:
            content = await asyncio.wait_for(self._body(request), PATIENCE)
            return JSONResponse(await asyncio.get_running_loop().run_in_executor(self._threads, self._best, content))
        except UserError as error:
            raise HTTPException(400, str(error)) from None
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the body did not come in {PATIENCE} s", {"Connection": "close"}) from None
        finally:
            self._present -= 1

    async def _health(self, request: Request) -> JSONResponse:
        """For whoever watches over the process: how many requests are at work or waiting."""
        return JSONResponse({"model": self._predictor.card.model, "requests": self._present})

    async def _body(self, request: Request) -> bytes:
        most = round(self._limits.megabytes * 1e6)
        too_large = HTTPException(413, f"more than {self._limits.megabytes:g} MB", {"Connection": "close"})
        if int(request.headers.get("Content-Length", 0)) > most:  # uvicorn lets numbers through only
            raise too_large
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > most:
                raise too_large
        if not content:
            raise HTTPException(400, "the body is empty; it has to be an image (curl --data-binary @bird.jpg)")
        return bytes(content)

    def _best(self, content: bytes) -> list[dict[str, Any]]:
        return [asdict(guess) for guess in cast("list[Prediction]", self._predictor.predict(content))]


async def _told(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # which it handles alone
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@run_script
def main(argv: Sequence[str]) -> None:
    options = parse(argv, description=__doc__, script=Options, sections=()).script
    limits = Limits(options.queue, options.megabytes, options.megapixels, options.threads)
    service = Service(Predictor(options.file), limits)
    uvicorn.run(service.app, host=options.host, port=options.port, backlog=limits.queue, log_level="warning")
