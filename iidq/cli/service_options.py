"""Options for URL and key of a service, equal in every command."""

from typing import Annotated, Final

import typer

DEFAULT_SERVER: Final = "http://127.0.0.1:3001"

ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="IIDQ_API_KEY",
        show_default=False,
        help="the service's key, if it needs one; prefer the variable: other users of this machine see command lines",
    ),
]
