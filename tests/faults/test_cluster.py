"""A broker of three nodes, each of which is killed in turn and comes back, with the whole service under load."""

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
    """The service of these tests: its web tier and its workers know all nodes, and connect to the first one first."""
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
    assert row.failed < row.sent / 10  # some requests may time out during the election of a leader
