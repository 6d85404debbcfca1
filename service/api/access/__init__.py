"""Who may use a route, and what is noted of it."""
