"""A model behind HTTP: one image a request, its likeliest classes as JSON. An exported ONNX file needs neither
MindSpore nor torch; `pip install starlette uvicorn` first.

    python scripts/serve.py deit_tiny.onnx --port 3000
    curl --data-binary @bird.jpg http://localhost:3000/classify

One process, so nothing outlives it. Its threads (one for each core) decode and compute; requests beyond these wait, up
to ``--queue`` in all; who comes then is told 503 and to try again. 400: the body is no image, or one of more than
``--megapixels``, which is seen before it is decoded; 413: more than ``--megabytes``, of which no more is read; 408: it
took more than half a minute to come.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mindeit import Predictor, UserError
from mindeit.errors import run_script

PATIENCE = 30  # seconds for the body of a request


@dataclass(frozen=True)
class Limits:
    """``queue``: requests at once, at work or waiting; the others are of one image."""

    queue: int = 256
    megabytes: float = 10
    megapixels: float = 50
    threads: int = os.cpu_count() or 1


class Service:
    """The application, for any ASGI server: ``Service(predictor, Limits()).app``."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits
        self._threads = ThreadPoolExecutor(limits.threads)
        self._present = 0
        Image.MAX_IMAGE_PIXELS = round(limits.megapixels * 1e6)
        self._predictor.predict(np.zeros((32, 32, 3), np.uint8))  # compiles, if anything does, before requests come
        routes = [Route("/classify", self._classify, methods=["POST"])]
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
        return [asdict(guess) for guess in self._predictor.predict(content)]


async def _told(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@run_script
def main(argv: Sequence[str]) -> None:
    default = Limits()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported file or a checkpoint")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--queue", type=int, default=default.queue)
    parser.add_argument("--megabytes", type=float, default=default.megabytes)
    parser.add_argument("--megapixels", type=float, default=default.megapixels)
    parser.add_argument("--threads", type=int, default=default.threads)
    options = parser.parse_args(argv)
    limits = Limits(options.queue, options.megabytes, options.megapixels, options.threads)
    service = Service(Predictor(options.model), limits)
    uvicorn.run(service.app, host=options.host, port=options.port, backlog=limits.queue, log_level="warning")


if __name__ == "__main__":
    main()
