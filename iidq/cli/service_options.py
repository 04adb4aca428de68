"""The options that name a running service and its key, the same for every command that asks one."""

from typing import Annotated, Final

import typer

DEFAULT_SERVER: Final = "http://127.0.0.1:3001"

ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="IIDQ_API_KEY",
        show_default=False,
        help="the service's key, if it asks; better by the variable, for other users of this machine see command lines",
    ),
]
