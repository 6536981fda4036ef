"""A broker of three nodes, each of which dies in its turn and comes back, with all of Tolk at work."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.settings import REPOSITORY
from launch.rabbitmq import PrivateRabbitMQ
from tests.faults.cluster import NAMES, Cluster
from tests.faults.house import House
from tests.faults.load import Load, Row

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(new_broker: Callable[..., PrivateRabbitMQ], free_port: Callable[[], int]) -> Cluster:
    return Cluster(new_broker, free_port)


@pytest.fixture(scope="module")
def house(build: Callable[..., House], cluster: Cluster) -> House:
    """In whose place the trials happen: its web tier and its workers know all nodes, and begin with the first."""
    return build("echo", REPOSITORY / "tests" / "tasks", 2, cluster)


@pytest.mark.parametrize("node", range(len(NAMES)))
def test_a_node_is_killed_and_the_others_go_on(
    cluster: Cluster, trial: Callable[..., Row], eventually: Callable[..., None], node: int
) -> None:
    def fault(load: Load) -> None:
        cluster.nodes[node].kill()
        killed = time.monotonic()
        eventually(lambda: load.answered_since(killed + 1))
        cluster.nodes[node].start()

    row = trial(f"kill -9 of node {node + 1} of 3 of the broker, and its restart", fault)
    assert row.failed < row.sent / 10  # some may not outlast the choice of another leader
