"""One suite for every store, `contract.StoreContract`, and what each database has of its own."""
