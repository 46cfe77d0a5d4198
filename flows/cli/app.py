"""The ``reflux`` command that all verbs belong to."""

import typer

UI_PORT = 5000
HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="From a folder of images to a small model a team can trust.",
    epilog="Start with: reflux run",
    context_settings=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Manage your datasets.", context_settings=HELP, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
