"""Flower in Compose: https://flower.readthedocs.io/en/latest/config.html."""

from pathlib import Path

SECRETS = Path("/run/secrets")

basic_auth = [(SECRETS / "login").read_text()]
broker_api = (SECRETS / "broker-api").read_text()
persistent = False
max_tasks = 10_000
tasks_columns = "uuid,state,args,received,runtime,worker"  # all have one name, and no result is shown
