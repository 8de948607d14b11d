"""Ranking and multi-task models on the same tables, beside logistic regression and boosted trees."""
