"""A watch on the requests to AWS."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.httpsession import URLLib3Session


class Wire:
    """The signers and services of all requests to AWS, some of which may be refused."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.signers: set[tuple[str, str]] = set()  # access key, region
        self.services: set[str] = set()
        self.refused, self.refusal = "", ""  # a part of a URL, the answer to it
        session: Any = URLLib3Session
        send = session.send

        def watch(http: Any, request: Any) -> Any:
            scope = re.search("Credential=([^/]+)/[0-9]+/([^/]+)/([^/]+)/", str(request.headers))
            if scope:
                self.signers.add((scope[1], scope[2]))
                self.services.add(scope[3])
            if self.refusal and self.refused in request.url:
                raw = SimpleNamespace(stream=lambda: [self.refusal.encode()])
                return AWSResponse(request.url, 403, HTTPHeaders(), raw)
            return send(http, request)

        patch.setattr(session, "send", watch)
