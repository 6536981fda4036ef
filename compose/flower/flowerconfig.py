"""Flower in Compose: https://flower.readthedocs.io/en/latest/config.html."""

from pathlib import Path
from typing import Any

SECRETS = Path("/run/secrets")

basic_auth = [(SECRETS / "login").read_text()]
broker_api = (SECRETS / "broker-api").read_text()
persistent = False
max_tasks = 10_000
# All tasks have one name, and their results are people's texts, which no worker tells.
tasks_columns = "state,args,received,runtime,worker,uuid"


def format_task(task: Any) -> Any:
    """Its arguments, which app.broker.publishing describes, shortly enough for their column."""
    task.args = task.args and task.args.strip("<>").replace(" characters", " chars")
    return task
