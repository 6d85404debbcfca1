"""What other budgets would give: as the result has it, in words, and on the page."""
