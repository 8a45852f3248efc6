"""The `stillroom` command: what each subcommand reads and prints; the work is done in the rooms."""
