"""A stack that Terraform made on moto."""

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.terraform import cloud as moto_cloud
from tests.terraform.cloud import Cloud
from tests.terraform.root import PROJECT, STACK, Root, copy_files, new_root


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """Moto, mended, for the whole session."""
    with moto_cloud.start() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def zips() -> None:
    """The functions' zips, made anew."""
    subprocess.run([PROJECT / "zipper.sh"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def new_stack(
    cloud: Cloud, zips: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Root]:
    """Return a function that copies the stack's root, with its settings and ready to apply."""

    def new(**settings: object) -> Root:
        folder = copy_files(PROJECT, tmp_path_factory.mktemp("stack"), *STACK)
        return new_root(folder, cloud.url, **settings)

    return new


@pytest.fixture(scope="session")
def new_caller(
    cloud: Cloud, zips: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Root]:
    """Return a function that makes a root of one's own, which calls the stack as the docs do."""
    page = (PROJECT / "docs/settings.md").read_text()
    [example] = re.findall(r"^```hcl\n(.*?)^```", page, re.MULTILINE | re.DOTALL)

    def new() -> Root:
        folder = tmp_path_factory.mktemp("caller")
        copy_files(PROJECT, folder / "ddg-stats", *STACK)
        (folder / "main.tf").write_text(example)
        return new_root(folder, cloud.url)

    return new


@pytest.fixture(scope="session")
def stack(new_stack: Callable[..., Root]) -> Root:
    """A stack with the defaults, to look at: tests that change a stack make one of their own."""
    root = new_stack(tags={"team": "data"}, jobs={"nightly*": {"silent_after_hours": 26}})
    root.apply()
    return root
