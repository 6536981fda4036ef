"""The commands of `flask --app app`, besides Flask's own."""

from app.cli.database import database
from app.cli.dead_letters import dead_letters
from app.cli.jobs import jobs
from app.cli.keys import keys
from app.cli.schema import schema
from app.cli.trace import trace

COMMANDS = (database, dead_letters, jobs, keys, schema, trace)
