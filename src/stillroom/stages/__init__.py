"""One thin module per stage of dvc.yaml: read deps, call a room, write outs, leave a receipt."""
