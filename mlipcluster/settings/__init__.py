"""What users, sites and projects set: which keys there are, who says what, and what holds."""
