"""AWS as a command sees it: one session for all that speaks to it, and its errors in a line."""

import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ddg_settings import Clients, Settings, make_clients

HOW_TO_NAME = "Name it: --stack ddg-stats, or --stack FILE that `terraform output -json` wrote."
WHO_AM_I = "`aws sts get-caller-identity` shows who you are; choose with --profile or AWS_PROFILE."
APPLY = "Run `terraform apply`."
BY_HAND = f"{APPLY} Somebody may have changed it by hand."
RIGHT_PLACE = f"Is this the right stack, region and account? {HOW_TO_NAME}"
MISSING = "404|NoSuch|NonExistent|NotFound|DoesNotExist"

CAUSES = {  # a part of the code, or of botocore's own name -> what it means, and what to do
    "ProfileNotFound": "{text}. `aws configure list-profiles` shows those that are there.",
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
        "AWS can't be reached ({text}). Look at the network, the proxy and the region."
    ),
    "": f"AWS: {{code}}, {{operation}}: {{text}}. Try again. {RIGHT_PLACE}",
}


class Aws:
    """One session: a profile, a region, and one question for an MFA code, for every client."""

    def __init__(self, profile: str | None, region: str | None) -> None:
        self.session = botocore.session.Session(profile=profile)
        region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region:  # botocore itself reads the last one alone
            self.session.set_config_variable("region", region)
        self._clients: dict[str, Any] = {}
        self._submitters: dict[Settings, Clients] = {}

    def client(self, service: str) -> Any:
        """Make a service's client where it is first needed, and keep it."""
        if service not in self._clients:
            retries = {"mode": "standard", "total_max_attempts": 3}
            config = Config(connect_timeout=5, read_timeout=30, retries=retries)  # type: ignore[arg-type]  # so the stubs
            self._clients[service] = self.session.create_client(service, config=config)
        return self._clients[service]

    def submitter(self, settings: Settings) -> Clients:
        """Return the clients that the submitter's functions need, of this session."""
        if settings not in self._submitters:
            self._submitters[settings] = make_clients(settings, self.session)
        return self._submitters[settings]

    @property
    def region(self) -> str:
        return str(self.client("sqs").meta.region_name)


def time_at_aws(response: Mapping[str, Any]) -> float:
    """Return AWS's clock when it answered, epoch seconds in whole: ours may be wrong."""
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


def is_missing(error: object) -> bool:
    """Tell whether AWS says that something isn't there."""
    return isinstance(error, ClientError) and bool(
        re.search(MISSING, error.response["Error"].get("Code", ""))
    )


def explain(error: ClientError | BotoCoreError) -> str:
    """Return an error of AWS's as one line that says what to do."""
    code, operation, text = type(error).__name__, "asking AWS", str(error)
    if isinstance(error, ClientError):
        found = error.response["Error"]
        code, text = found.get("Code", ""), found.get("Message", "")
        operation = error.operation_name
    meaning = next(each for part, each in CAUSES.items() if re.search(part, code))
    return meaning.format(code=code, operation=operation, text=text)
