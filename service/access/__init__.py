"""Who may ask for what: keys, roles, tenants and their limits, and the record of what was done."""
