"""AWS for a command: one session for all its clients, and errors explained in one line."""

import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ddg_settings import Clients, Settings, make_clients

HOW_TO_NAME = "Name it: --stack ddg-stats, or --stack FILE from `terraform output -json`."
WHO_AM_I = "`aws sts get-caller-identity` shows who you are; choose with --profile or AWS_PROFILE."
APPLY = "Run `terraform apply`."
BY_HAND = f"{APPLY} Somebody may have changed it by hand."
RIGHT_PLACE = f"Are the stack, region and account right? {HOW_TO_NAME}"
MISSING = "404|NoSuch|NonExistent|NotFound|DoesNotExist"

EXPLANATIONS = {  # pattern for an error's code or class -> what it means and what to do
    "ProfileNotFound": "{text}. `aws configure list-profiles` lists your profiles.",
    "NoRegion": "no AWS region. Give --region, or set AWS_REGION.",
    "NoCredentials|PartialCredentials": (
        f"no AWS credentials. Log in (`aws configure`, `aws sso login`). {WHO_AM_I}"
    ),
    "AuthFailure|Signature|AccessKeyId|ClientTokenId|AuthenticationToken|UnrecognizedClient": (
        f"AWS doesn't know these credentials ({{code}}). {WHO_AM_I}"
    ),
    "Expired|TokenRefreshRequired|SSO": (
        f"your AWS credentials have expired. Log in again (`aws sso login`). {WHO_AM_I}"
    ),
    "403|AccessDenied|AuthorizationError|Forbidden": (
        f"your AWS profile may not {{operation}} ({{text}}). {WHO_AM_I}"
    ),
    MISSING: f"not there ({{operation}}: {{text}}). {RIGHT_PLACE}",
    "Connect|Timeout|HTTP|SSL": (
        "AWS can't be reached ({text}). Check the network, the proxy and the region."
    ),
    "": f"AWS answered {{code}} to {{operation}}: {{text}}. Try again. {RIGHT_PLACE}",
}


class Aws:
    """One session for all clients: the same profile and region, and one prompt for an MFA code."""

    def __init__(self, profile: str | None, region: str | None) -> None:
        self.session = botocore.session.Session(profile=profile)
        region = region or os.environ.get("AWS_REGION")  # botocore reads AWS_DEFAULT_REGION alone
        if region:
            self.session.set_config_variable("region", region)
        self.client = cache(self._make_client)  # each is made once
        self.submitter = cache(self._make_submitter)

    def _make_client(self, service: str) -> Any:
        retries = {"mode": "standard", "total_max_attempts": 3}
        config = Config(connect_timeout=5, read_timeout=30, retries=retries)  # type: ignore[arg-type]  # so the stubs
        return self.session.create_client(service, config=config)

    def _make_submitter(self, settings: Settings) -> Clients:
        return make_clients(settings, self.session)

    @property
    def region(self) -> str:
        return str(self.client("sqs").meta.region_name)


def time_at_aws(response: Mapping[str, Any]) -> float:
    """Return AWS's time of a response, in whole epoch seconds: the local clock may be wrong."""
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


def is_missing(error: object) -> bool:
    """Tell whether AWS says that something doesn't exist."""
    return isinstance(error, ClientError) and bool(
        re.search(MISSING, error.response["Error"].get("Code", ""))
    )


def explain(error: ClientError | BotoCoreError) -> str:
    """Explain an error of AWS in one line: what is wrong. What to do."""
    code, operation, text = type(error).__name__, "a request", str(error)
    if isinstance(error, ClientError):
        found = error.response["Error"]
        code, text = found.get("Code", ""), found.get("Message", "")
        operation = error.operation_name
    meaning = next(each for part, each in EXPLANATIONS.items() if re.search(part, code))
    return meaning.format(code=code, operation=operation, text=text)
