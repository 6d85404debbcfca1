"""What other budgets would give: which are offered, and whether an engine is accepted at one."""
