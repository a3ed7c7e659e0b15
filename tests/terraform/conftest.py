"""Stacks that Terraform makes on moto."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.terraform import cloud as moto_cloud
from tests.terraform.cloud import Cloud
from tests.terraform.root import PROJECT, STACK, Root, copy_files, new_root


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    with moto_cloud.start() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def zips() -> None:
    """The functions' zips, up to date."""
    subprocess.run([PROJECT / "zipper.sh"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def new_stack(
    cloud: Cloud, zips: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Root]:
    """A function that copies the stack's root, and initializes it with settings."""

    def new(**settings: object) -> Root:
        folder = copy_files(PROJECT, tmp_path_factory.mktemp("stack"), *STACK)
        return new_root(folder, cloud.url, **settings)

    return new


@pytest.fixture(scope="session")
def new_example(
    cloud: Cloud, zips: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Root]:
    """A function that copies and initializes one of examples/."""

    def new(name: str) -> Root:
        folder = copy_files(PROJECT, tmp_path_factory.mktemp("caller"), *STACK)
        copy_files(PROJECT, folder, f"examples/{name}/*.tf")
        return new_root(folder / "examples" / name, cloud.url)

    return new


@pytest.fixture(scope="session")
def stack(new_stack: Callable[..., Root]) -> Root:
    """A stack with the defaults that no test changes."""
    root = new_stack(tags={"team": "data"}, jobs={"nightly*": {"silent_after_hours": 26}})
    root.apply()
    return root
