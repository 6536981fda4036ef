"""Flower in Compose: https://flower.readthedocs.io/en/latest/config.html."""

from pathlib import Path
from typing import Any

SECRETS = Path("/run/secrets")

basic_auth = [(SECRETS / "login").read_text()]
broker_api = (SECRETS / "broker-api").read_text()
persistent = False
max_tasks = 10_000
# The columns `name` and `result` are left out: all tasks have one name, and workers do not send results to monitors.
tasks_columns = "state,args,received,runtime,worker,uuid"


def format_task(task: Any) -> Any:
    """Shortens the description of a task's arguments, by app.broker.publishing, so that it fits into its column."""
    task.args = task.args and task.args.strip("<>").replace(" characters", " chars")
    return task
