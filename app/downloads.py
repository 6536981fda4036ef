"""`/jobs/ID/translations.tsv` and `.ndjson`: the translations of a job as a file, for the holder of its key."""

from __future__ import annotations

import threading

from flask import Response, abort, request

from app.accounts import auth
from app.accounts.keys import KeyRing, Scope
from app.jobs.download import lines
from app.jobs.submission import Jobs
from app.settings import Settings
from tasks.contract.errors import Code, TolkError

TYPES = {"tsv": "text/tab-separated-values; charset=utf-8", "ndjson": "application/x-ndjson"}


class Downloads:
    """The view. It serves as many downloads at a time as there are `places`, so that threads are left for others."""

    def __init__(self, settings: Settings, jobs: Jobs, keys: KeyRing, places: int) -> None:
        self._settings = settings
        self._jobs = jobs
        self._keys = keys
        self._places = threading.BoundedSemaphore(places)

    def __call__(self, job_id: str, form: str) -> Response:
        """Raises TolkError as app.jobs.submission.Jobs does, and OVERLOADED if all places are taken."""
        if form not in TYPES:
            abort(404, description="A job's translations are at translations.tsv and translations.ndjson.")
        key = auth.authenticate(request, self._keys, local=auth.is_loopback(self._settings.host))
        auth.demand(key, Scope.TRANSLATE)
        job = self._jobs.find(key.principal if key else "", job_id)
        if job is None:
            abort(404, description="There is no such job of this key, or it has expired.")
        if not self._places.acquire(blocking=False):
            raise TolkError(Code.OVERLOADED, "Too many downloads run already. Try again in a moment.", 5.0)
        response = Response(lines(self._jobs, job, form), content_type=TYPES[form])
        response.headers["Content-Disposition"] = f'attachment; filename="{job.id}.{form}"'
        response.call_on_close(self._places.release)
        return response
