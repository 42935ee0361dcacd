"""The cluster file is one that the installed Ray accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from tests.test_layering import ROOT

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_cluster_fits_the_schema(cluster: dict[str, Any]) -> None:
    jsonschema.validate(cluster, SCHEMA)


def test_schema_finds_a_misspelt_field(cluster: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**cluster, "max_worker": 3}, SCHEMA)


def test_head_node_is_one_of_the_types_and_runs_no_worker(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}


def test_every_machine_has_an_image_of_our_choice(cluster: dict[str, Any]) -> None:
    """Ray's own default is too old for the Python and the torch that are installed there."""
    assert all("ImageId" in kind["node_config"] for kind in cluster["available_node_types"].values())


def test_workers_do_not_wait_for_a_demand_that_a_job_never_makes(cluster: dict[str, Any]) -> None:
    """A job sizes its pool by what has joined (`pipeline.actors.pool_size`); it asks for no machine that may come."""
    types = cluster["available_node_types"]
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert all(kind["min_workers"] == kind["max_workers"] > 0 for kind in workers)
    assert sum(kind["max_workers"] for kind in workers) == cluster["max_workers"]


def test_nodes_install_by_a_target_that_exists(cluster: dict[str, Any]) -> None:
    (install,) = (command for command in cluster["setup_commands"] if "make " in command and "apt-get" not in command)
    assert f"\n{install.split('make ')[1]}:" in (ROOT / "Makefile").read_text()
