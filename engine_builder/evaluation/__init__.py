"""Running models on samples and scoring them."""
