"""The one room that knows DVC, by its command line: graph, plan, runner, workspaces, versions of the data."""
