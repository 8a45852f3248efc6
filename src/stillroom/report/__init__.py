"""What people read of a run: the result table, plots, the HTML report, model cards."""
