"""pause and resume: stop and restart the pipeline, and lose no file."""

import click

from ddg_ops.queues import yes_option
from ddg_ops.screen import FINE, Command, Screen
from ddg_ops.stack import Stack, queue_name, stack_options

PAUSED = (
    "Meanwhile files wait in the queue, for up to 4 days. Files over an hour old are refused.",
    "The alarms nothing-submitted, files-waiting and job-silent will go off.",
    "To resume: ddg-ops resume --yes, or the next `terraform apply`.",
)


@click.command(cls=Command, examples=["", "--yes"])
@yes_option
@stack_options
@click.pass_obj
def pause(screen: Screen, stack: Stack, *, yes: bool) -> int:
    """Stop taking files from the queue, and stop the generator or heartbeat.

    Without --yes, only say what would be switched off.
    """
    return switch(screen, stack, on=False, yes=yes)


@click.command(cls=Command, examples=["", "--yes"])
@yes_option
@stack_options
@click.pass_obj
def resume(screen: Screen, stack: Stack, *, yes: bool) -> int:
    """End a pause. Without --yes, only say what would be switched on."""
    return switch(screen, stack, on=True, yes=yes)


def switch(screen: Screen, stack: Stack, *, on: bool, yes: bool) -> int:
    """Switch the event source mapping, and the schedule of the generator or heartbeat."""
    stack.prove()
    functions, events = stack.aws.client("lambda"), stack.aws.client("events")
    parts: dict[str, str] = {}  # part -> its state before
    for mapping in stack.mappings(stack.queue(stack.main_url)["QueueArn"]):
        parts[f"{queue_name(stack.main_url)} to {stack.function}"] = mapping["State"].lower()
        if yes:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=on)
    if stack.generator:
        rule = {"Name": stack.generator}
        parts[f"the schedule of {stack.generator}"] = events.describe_rule(**rule)["State"].lower()
        if yes:
            (events.enable_rule if on else events.disable_rule)(**rule)
    word = "on" if on else "off"
    for part, was in parts.items():
        screen.say(f"{part}: {'switched' if yes else 'would be switched'} {word} (was {was})")
    for line in () if on else PAUSED:
        screen.say(line)
    if not yes:
        screen.say("Nothing was switched: that takes --yes.")
    screen.result({"switched": word if yes else None, "parts": parts})
    return FINE
