"""pause and resume: hold the pipeline, and let it go on."""

import click

from ddg_ops.queues import yes_option
from ddg_ops.screen import FINE, Command, Screen
from ddg_ops.stack import Stack, queue_name, stack_options

PAUSED = (
    "Files wait in the queue meanwhile, for 4 days; those of over an hour are refused afterwards.",
    "The alarm nothing-submitted will ring, and those of files that wait and of silent jobs.",
    "`terraform apply` resumes, and so does: ddg-ops resume --yes",
)


@click.command(cls=Command, examples=["", "--yes"])
@yes_option
@stack_options
@click.pass_obj
def pause(screen: Screen, stack: Stack, *, yes: bool) -> int:
    """Hold all files in the queue, and the generator or heartbeat; without --yes, say so."""
    return switch(screen, stack, on=False, yes=yes)


@click.command(cls=Command, examples=["", "--yes"])
@yes_option
@stack_options
@click.pass_obj
def resume(screen: Screen, stack: Stack, *, yes: bool) -> int:
    """End a pause; without --yes, say what that is."""
    return switch(screen, stack, on=True, yes=yes)


def switch(screen: Screen, stack: Stack, *, on: bool, yes: bool) -> int:
    """Switch what feeds the submitter, and what runs the generator or the heartbeat."""
    stack.prove()
    functions, events = stack.aws.client("lambda"), stack.aws.client("events")
    parts: dict[str, str] = {}  # part -> its state so far
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
