"""Tasks of kind `python`: `script`, a file of the project, run by the Python of agentmux itself."""

import asyncio
import os
import sys

from engine.executors.base import RunContext
from engine.executors.capping import Caps
from engine.executors.programs import (
    Program,
    Refused,
    ending,
    finish,
    inherited,
    make_private,
    start,
    tail,
)
from engine.model import Outcome, RunOutcome
from engine.shield import shielded


class PythonExecutor:
    """Exit code 0 is DONE, with what the script printed last as its result; any other FAILED."""

    prepares = False

    async def run(self, context: RunContext) -> Outcome:
        """Run the script to its end; a stop ends it, with all that it has started."""
        out, err = context.artifacts / "stdout.log", context.artifacts / "stderr.log"
        try:
            program = _program(context)
            make_private(context.artifacts)
            # It bounds the logs, and keeps what is secret in our environment out of them.
            async with Caps(context.config.shell.max_output, out, err, secrets=os.environ):
                child = start(context, program, stdout=out, stderr=err)
                code = await finish(context, child)
        except Refused as refusal:  # no retry would help: a human has to
            return Outcome(RunOutcome.BLOCKED, error=str(refusal))
        except OSError as error:
            return Outcome(RunOutcome.FAILED, error=f"cannot start: {error}")
        log = err if code else out
        # Files are read in a thread; and what is done is done, whoever wants to stop it now.
        said = await shielded(asyncio.to_thread(tail, log, os.environ), reraise=False)
        if code:
            return Outcome(RunOutcome.FAILED, error=f"{ending(code)}: {said}", exit_code=code)
        return Outcome(RunOutcome.DONE, result={"printed": said}, exit_code=0)


def _program(context: RunContext) -> Program:
    project, script = context.project.resolve(), str(context.claim.task.payload.get("script"))
    file = (project / script).resolve()
    if not file.is_relative_to(project) or not file.is_file():
        raise Refused(f"payload.script: {script!r} is no file of {project}; mend the DAG")
    env = inherited(context.config.shell.env_pass, os.environ)
    return Program((sys.executable, str(file)), project, env)
