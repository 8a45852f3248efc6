"""What happened and what is in production: runs in MLflow, versions with proof, a ledger of promotions."""
