"""Downloads: the record of a run that has ended. Models are not given away here: `coordinator export` copies them."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coordinator.home.home import Home
from coordinator.run import results
from fedcervix.core.events import RUN_NAME
from fedcervix.disk.storage import read_file
from fedcervix.errors import StorageError


def record_route(home: Home) -> Route:
    """Return the route of a run's record."""

    def read(run: str) -> bytes | None:
        if RUN_NAME.fullmatch(run) is None or run not in results.names(home.results):
            return None
        return read_file(home.results / run / results.RECORD_FILE)

    async def record(request: Request) -> Response:
        run = request.path_params["run"]
        try:
            text = await run_in_threadpool(read, run)
        except StorageError as error:
            return PlainTextResponse(f"{error.explain()}\n", status_code=500)
        if text is None:
            return PlainTextResponse("no run of this name has left a record here\n", status_code=404)
        named = {"Content-Disposition": f'attachment; filename="{run}.{results.RECORD_FILE}"'}
        return Response(text, media_type="application/json", headers=named)

    return Route("/records/{run}", record)
