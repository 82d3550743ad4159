"""How long every stage takes, and how much memory it needs: `momap bench --help`."""
