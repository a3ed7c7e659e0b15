"""jobs: each job's last file, and the time left for watched jobs."""

from collections import Counter
from collections.abc import Iterator

import click

from ddg_ops.screen import FINE, UNABLE, WRONG, Command, Screen, age, ago, count, utc
from ddg_ops.stack import Stack, reading_settings, stack_options
from ddg_ops.walk import EVERYTHING, Walk
from ddg_s3_objects import job_folder, job_tag
from ddg_settings import read_buckets

MAX_KEYS = 100_000  # listed: a hundred requests


@click.command(cls=Command, examples=["", "--json"])
@stack_options
@click.pass_obj
def jobs(screen: Screen, stack: Stack) -> int:
    """List the jobs: last file, refused files, and for watched jobs the time until the alarm."""
    files: Counter[str] = Counter()
    last: dict[str, float] = {}  # epoch seconds
    refused: Counter[str] = Counter()  # by the job's tag
    stopped = ""
    with screen.progress("keys") as advance:
        for where, job, modified in list_files(stack):
            if files.total() == MAX_KEYS:
                stopped = f"stopped at {MAX_KEYS:,} keys, before {where}: later ones aren't counted"
                break
            files[job] += 1
            last[job] = max(last.get(job, 0.0), modified)
            advance(1)
    with Walk(stack, stack.rejected_url, EVERYTHING, screen) as walk:
        for messages in walk.wanted():
            refused.update(message.job for message in messages)
    silent, documents = 0, []
    for job in sorted({*files, *stack.watched}):
        hours, at = stack.watched.get(job), last.get(job)
        text = f"last file {ago(at, walk.now)}, {count(files[job], 'file')}" if at else "no file"
        text += f", {refused[job_tag(job)]:,} refused"
        left = (at or 0.0) + 3600 * hours - walk.now if hours else None
        is_silent = left is not None and left <= 0
        silent += is_silent
        if left is not None:
            text += ", silent for too long" if is_silent else f", may be silent for {age(left)}"
        screen.say(f"{job or '(no folder)':<24}  {text}", "red" if is_silent else "")
        documents.append(
            {
                "job": job,
                "last_file": utc(at) if at else None,
                "files": files[job],
                "refused": refused[job_tag(job)],
                "silent": is_silent,
                "seconds_left": round(left) if left and at else None,
            }
        )
    for problem in filter(None, (stopped, walk.problem)):
        screen.say(f"Incomplete: {problem}.", "yellow")
    complete = walk.complete and not stopped
    screen.result({"jobs": documents, "complete": complete})
    return WRONG if silent else FINE if complete else UNABLE


def list_files(stack: Stack) -> Iterator[tuple[str, str, float]]:
    """Yield the address, job and Last-Modified (epoch seconds) of each file in the buckets."""
    others = read_buckets(reading_settings(stack.environment()).buckets)
    own = {stack.bucket: stack.prefix} if stack.bucket else {}
    pages = stack.aws.client("s3").get_paginator("list_objects_v2")
    for bucket, prefix in (own | others).items():
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for each in page.get("Contents", []):
                key = each["Key"]
                modified = each["LastModified"].timestamp()
                yield f"s3://{bucket}/{key}", job_folder(key, prefix), modified
